//! Modules of a crate use each other in one direction, and their files stay small.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates whose modules use each other in no circle.
const WITHOUT_CIRCLES: [&str; 17] = [
    "functions/cleanup",
    "functions/vectorization",
    "shared/aws",
    "shared/call",
    "shared/checks",
    "shared/config",
    "shared/deploy",
    "shared/edges",
    "shared/invocation",
    "shared/lambda",
    "shared/nouns",
    "shared/pipeline",
    "shared/provider",
    "shared/reading",
    "shared/secrets",
    // Of these, no others than the ones that are listed.
    "cli",
    "shared/store",
];

/// Circles that are yet to be opened. A command's module and its parent make one with clap: it isn't told from the rest of
/// its circle.
const CIRCLES: [(&str, &[&str]); 8] = [
    ("cli", &["exit", "remote"]),
    ("shared/store", &["ends", "vectors"]),
    ("shared/store", &["jobs", "listing"]),
    ("shared/store", &["migrate", "numbers"]),
    ("shared/store", &["bodies", "uploads"]),
    ("shared/store", &["migrate::index", "migrate::run"]),
    (
        "shared/store",
        &[
            "sources::fill",
            "sources::notes",
            "sources::reconcile",
            "sources::trouble",
        ],
    ),
    (
        "shared/store",
        &[
            "sources::alter",
            "sources::attach",
            "sources::attempt",
            "sources::origins",
        ],
    ),
];

/// Modules by their paths in the crate, each with those of the crate that it names.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = paths.partition(|path| path.is_dir());
    let files = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

/// A file's module: its path without what names no module.
fn module_of(file: &Path, src: &Path) -> Vec<String> {
    let path = file.strip_prefix(src).unwrap().with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap().to_owned());
    parts
        .filter(|part| !["lib", "main", "mod"].contains(&part.as_str()))
        .collect()
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn unfolded(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else {
        return vec![tree.to_owned()];
    };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inner.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match letter {
            ',' if depth == 0 => parts.push(String::new()),
            letter => parts.last_mut().unwrap().push(letter),
        }
    }
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.flat_map(|part| unfolded(&format!("{before}{part}"))).collect()
}

/// The paths that a file names: those of its `use`, and those that begin with `crate`, `self` or `super`.
fn named(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    let text: String = lines.collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for statement in text.split("use ").skip(1) {
        let tree: String = statement.split(';').next().unwrap().split_whitespace().collect();
        paths.extend(unfolded(&tree));
    }
    let is_of_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = text.split(|letter| !is_of_path(letter));
    let here = words.filter(|word| {
        ["crate::", "self::", "super::"]
            .iter()
            .any(|start| word.starts_with(start))
    });
    paths.extend(here.map(str::to_owned));
    paths
}

fn uses(of: &str) -> Uses {
    let src = root().join(of).join("src");
    let mut texts: BTreeMap<String, (Vec<String>, String)> = BTreeMap::new();
    for file in sources(&src) {
        let module = module_of(&file, &src);
        if module.last().is_none_or(|name| name != "tests") {
            let text = std::fs::read_to_string(&file).unwrap();
            texts.entry(module.join("::")).or_insert((module, String::new())).1 += &text;
        }
    }
    let target = |here: &[String], path: &str| -> Option<String> {
        let mut path: Vec<String> = path.split("::").map(str::to_owned).collect();
        let mut full = match path[0].as_str() {
            "crate" => Vec::new(),
            "self" | "super" => here.to_vec(),
            child if texts.contains_key(&[here, &[child.to_owned()]].concat().join("::")) => here.to_vec(),
            _ => return None,
        };
        while let Some(word) = path
            .first()
            .filter(|word| ["crate", "self", "super"].contains(&word.as_str()))
        {
            if word == "super" {
                full.pop();
            }
            path.remove(0);
        }
        full.extend(path);
        while !texts.contains_key(&full.join("::")) {
            full.pop()?;
        }
        Some(full.join("::"))
    };
    let used = |(name, (here, text)): (&String, &(Vec<String>, String))| {
        let targets = named(text).into_iter().filter_map(|path| target(here, &path));
        // A module shows what its children hold: that it names them makes no circle.
        let is_child = |target: &String| target.rsplit_once("::").map_or("", |(parent, _)| parent) == name;
        (
            name.clone(),
            targets.filter(|target| target != name && !is_child(target)).collect(),
        )
    };
    texts.iter().map(used).collect()
}

/// Whom a module reaches, over however many others.
fn reached(uses: &Uses, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        next.extend(
            uses[module]
                .iter()
                .filter(|used| seen.insert((*used).clone()))
                .map(String::as_str),
        );
    }
    seen
}

/// Sets of modules each of which reaches all others of its set.
fn circles(uses: &Uses) -> BTreeSet<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<String>> = uses.keys().map(|name| (name, reached(uses, name))).collect();
    let of = |name: &String| -> Vec<String> {
        let back = reach[name].iter().filter(|other| reach[other].contains(name));
        back.cloned().collect()
    };
    uses.keys().map(of).filter(|circle| !circle.is_empty()).collect()
}

#[test]
fn modules_use_each_other_in_no_circle() {
    for name in WITHOUT_CIRCLES {
        for circle in circles(&uses(name)) {
            let is_known = CIRCLES
                .iter()
                .any(|(of, known)| *of == name && circle.iter().all(|module| known.contains(&module.as_str())));
            let is_claps = name == "cli" && circle.iter().any(|module| module == "verbs");
            assert!(is_known || is_claps, "{name}: {circle:?}");
        }
    }
}

#[test]
fn a_circle_is_found() {
    let uses = |pairs: &[(&str, &[&str])]| -> Uses {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        pairs
            .iter()
            .map(|(name, used)| ((*name).to_owned(), owned(used)))
            .collect()
    };
    let found = circles(&uses(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &["a"])]));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [["b", "c"]]);
    assert_eq!(unfolded("a::{b,c::{d,e}}"), ["a::b", "a::c::d", "a::c::e"]);
    assert!(self::uses("shared/pipeline")["send"].contains("state"));
}

#[test]
fn files_stay_small() {
    let folders = ["cli/src", "functions", "shared"].map(|folder| root().join(folder));
    let files = folders.iter().flat_map(|folder| sources(folder));
    let mut sizes: Vec<(usize, PathBuf)> = files
        .map(|file| (std::fs::read_to_string(&file).unwrap().lines().count(), file))
        .collect();
    sizes.sort();
    let at = |hundredths: usize| &sizes[(sizes.len() - 1) * hundredths / 100];
    for (hundredths, most) in [(50, 130), (90, 300), (100, 500)] {
        assert!(
            at(hundredths).0 <= most,
            "at {hundredths} % of the files: {:?}",
            at(hundredths)
        );
    }
}
