//! The patches that docs/EXTENDING.md shows fit the sources.

use std::process::Command;

#[test]
fn each_patch_applies() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let patches = std::fs::read_dir(format!("{root}/docs/extending")).unwrap();
    let mut found = 0;
    for patch in patches {
        let output = Command::new("git")
            .args(["apply", "--check"])
            .arg(patch.unwrap().path())
            .current_dir(root)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        found += 1;
    }
    assert!(found >= 3, "{found}");
}
