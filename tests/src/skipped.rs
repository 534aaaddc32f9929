//! Owns how a test that can't look says so: aloud, and in the file that `CRONVEC_SKIPPED` names, for the end of a run.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that the calling test looked at nothing, and why. Past the test harness's capture, so that it is seen when the test
/// passes.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED: {}: {why}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(format!("\n{line}").as_bytes());
    if let Some(path) = std::env::var_os("CRONVEC_SKIPPED") {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            // In one write: tests run beside each other.
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
