//! Which crate may use which: as docs/ARCHITECTURE.md shows it. And which module which.

mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each room under `shared/`, with those that it uses.
const ROOMS: [(&str, &[&str]); 15] = [
    ("nouns", &[]),
    ("edges", &[]),
    ("reading", &["nouns"]),
    ("config", &["edges", "nouns"]),
    ("secrets", &["config"]),
    ("aws", &["edges", "secrets"]),
    ("store", &["config", "edges", "nouns", "secrets"]),
    ("provider", &["edges", "nouns"]),
    ("invocation", &["nouns", "store"]),
    ("checks", &["nouns", "store"]),
    (
        "pipeline",
        &["config", "invocation", "nouns", "provider", "secrets", "store"],
    ),
    ("search", &["config", "pipeline", "provider", "secrets", "store"]),
    ("call", &["config", "edges", "invocation", "nouns", "secrets", "store"]),
    ("lambda", &["aws", "call", "secrets"]),
    ("deploy", &["aws", "call", "config", "edges", "secrets"]),
];

/// What the programs use besides rooms.
const PROGRAMS: [&str; 6] = [
    "admin",
    "cleanup",
    "cronvec",
    "cronvec-tests",
    "ingestion",
    "vectorization",
];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The workspace's crates, each with those of them that it depends on; not for its tests.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies
            .filter(|dependency| dependency["path"].is_string() && dependency["kind"] != "dev")
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), uses(package)))
        .collect()
}

#[test]
fn crates_use_each_other_as_the_picture_shows() {
    let edges = edges();
    let rooms: BTreeMap<String, BTreeSet<String>> = edges
        .iter()
        .filter_map(|(name, uses)| {
            let room = name.strip_prefix("cronvec-").filter(|room| *room != "tests")?;
            let uses = uses.iter().map(|used| used.trim_start_matches("cronvec-").to_owned());
            Some((room.to_owned(), uses.collect()))
        })
        .collect();
    let allowed: BTreeMap<String, BTreeSet<String>> = ROOMS
        .iter()
        .map(|(room, uses)| ((*room).to_owned(), uses.iter().map(|used| (*used).to_owned()).collect()))
        .collect();
    assert_eq!(rooms, allowed);
}

#[test]
fn no_function_sees_another_and_no_room_a_program() {
    for (name, uses) in edges() {
        let seen: Vec<&String> = uses.iter().filter(|used| PROGRAMS.contains(&used.as_str())).collect();
        let may_see = ["cronvec", "cronvec-tests"].contains(&name.as_str());
        assert!(may_see || seen.is_empty(), "{name} uses {seen:?}");
    }
}

#[test]
fn every_room_has_its_sentence() {
    let document = include_str!("../../../docs/ARCHITECTURE.md");
    for (room, _) in ROOMS {
        assert!(document.contains(&format!("\n| `{room}` | ")), "{room}");
    }
}

/// The crates of others that a build compiles, each with its features.
fn compiled(what: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p} {f}",
        ])
        .args(what)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let of_others = text.lines().filter(|line| !line.is_empty() && !line.contains(" (/"));
    of_others
        .map(|line| line.replace(" (*)", "").replace(" (proc-macro)", ""))
        .collect()
}

#[test]
fn the_command_line_and_the_workspace_compile_the_same_crates() {
    let first = compiled(&["--package", "cronvec", "--edges", "normal,build"]);
    let second = compiled(&["--workspace", "--edges", "normal,build,dev"]);
    assert!(first.len() > 100);
    let twice: Vec<&String> = first.difference(&second).collect();
    assert!(twice.is_empty(), "with other features: {twice:?}");
    let of_aws: Vec<&String> = first
        .iter()
        .filter(|name| name.starts_with("aws") || name.starts_with("lambda"))
        .collect();
    assert!(of_aws.is_empty(), "the command line alone needs no AWS: {of_aws:?}");
}
