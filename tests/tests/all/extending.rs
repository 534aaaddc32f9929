//! The patch that docs/EXTENDING.md shows fits the sources.

use std::process::Command;

#[test]
fn the_patch_that_adds_a_provider_applies() {
    let output = Command::new("git")
        .args(["apply", "--check", "docs/extending/provider.patch"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
