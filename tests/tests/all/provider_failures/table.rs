//! The table in the documentation and the tests: a row a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources below a folder, in one.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    all
}

#[test]
fn every_row_of_the_failures_table_names_one_test_that_there_is_and_no_other_row_names() {
    let page = std::fs::read_to_string(root().join("docs/PROVIDERS.md")).unwrap();
    let (_, table) = page.split_once("| what the provider did |").expect("the table");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 20, "{} rows", rows.len());
    let sources = [sources(&root().join("tests/tests")), sources(&root().join("shared"))].concat();
    let mut names = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        let name = cells[3].trim_matches('`');
        assert!(names.insert(name), "{name} stands in two rows");
        let tests = ["async fn ", "    fn ", "\nfn "].map(|start| sources.matches(&format!("{start}{name}()")).count());
        assert_eq!(tests.iter().sum::<usize>(), 1, "{name} is one test");
    }
}
