//! How large, quick and frugal the functions are, as they are deployed. It needs them built for that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cronvec_tests::conditions::eventually;
use cronvec_tests::skipped;

use super::{AMPLE, Deployment, direct, http_event};

const MB: f64 = 1e6;

/// The most that each may have: a zip with the static model and without it, the start, memory after a slice.
const ZIP: [f64; 2] = [16.0, 8.0];
const INIT: Duration = Duration::from_millis(60);
const MEMORY: [f64; 2] = [128.0, 64.0];

/// Those that have the static model in them.
const WITH_MODEL: [&str; 2] = ["vectorization", "admin"];

#[tokio::test]
async fn functions_that_are_built_for_lambda_are_small_start_at_once_and_need_little_memory() {
    let Some(folder) = std::env::var_os("CRONVEC_FUNCTIONS").map(PathBuf::from) else {
        return skipped("CRONVEC_FUNCTIONS names no folder of functions that `cargo lambda build` made");
    };
    let model = std::env::var_os("CRONVEC_FUNCTIONS_WITHOUT_MODEL").is_none();
    let mut deployment = Deployment::new().await;
    deployment
        .set("SESSION_SECRET", "a-session-secret-of-this-test-alone")
        .set("PUBLIC_URL", "https://cronvec.example.com");
    deployment.put(500).await;
    println!("| function | zip, MB | start, ms | memory after a call, MB | an idle call, ms |\n|---|---|---|---|---|");
    for name in ["ingestion", "vectorization", "cleanup", "admin"] {
        let mut function = deployment.function(name).await;
        eventually("it asks for work", || async { function.runtime.init().is_some() }).await;
        let init = function.runtime.init().unwrap();
        let event = match name {
            "admin" => http_event("GET", "/api/health", &[], None),
            _ => direct(super::SECRET),
        };
        function.runtime.invoke(event.clone(), AMPLE).await.unwrap();
        let began = Instant::now();
        function.runtime.invoke(event, AMPLE).await.unwrap();
        let idle = began.elapsed();
        let memory = resident(function.runtime.process().id());
        let zip = zipped(&folder.join(name));
        println!(
            "| `{name}` | {zip:.1} | {:.0} | {memory:.0} | {:.0} |",
            init.as_secs_f64() * 1e3,
            idle.as_secs_f64() * 1e3
        );
        let without = usize::from(!(model && WITH_MODEL.contains(&name)));
        assert!(zip < ZIP[without], "{name}: {zip} MB");
        assert!(memory < MEMORY[without], "{name}: {memory} MB");
        if without == 1 {
            assert!(init < INIT, "{name}: {init:?}");
        }
        function.end().await;
    }
}

/// The largest that its process has been.
fn resident(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kb: f64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kb * 1024.0 / MB
}

/// What Lambda gets of a program: zipped as SAM and cargo-lambda do.
fn zipped(folder: &Path) -> f64 {
    let script = "import sys, zipfile, io\nb = io.BytesIO()\nz = zipfile.ZipFile(b, 'w', zipfile.ZIP_DEFLATED)\n\
                  z.write(sys.argv[1], 'bootstrap')\nz.close()\nprint(len(b.getvalue()))";
    let output = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(folder.join("bootstrap"))
        .output()
        .unwrap();
    let bytes: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    bytes / MB
}
