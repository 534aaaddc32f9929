//! Owns real processes of the workspace's programs: built, started, stopped and killed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command as AsyncCommand};

/// Where a program of the workspace is, all of them built once per run with this profile. Cargo's own lock orders
/// runs among each other.
pub async fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = tokio::task::spawn_blocking(|| BUILT.get_or_init(build).clone())
        .await
        .expect("a build");
    let path = folder.join(name);
    assert!(path.exists(), "{name} is no program of the workspace");
    path
}

fn build() -> PathBuf {
    // <target>/<profile>/deps/<this test>
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("the profile's folder")
        .to_owned();
    let name = match profile.file_name().and_then(OsStr::to_str).expect("the profile's name") {
        "debug" => "dev",
        name => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    // What cargo told this test about its package is no news for another build: build scripts that look at it
    // (ring's) would run again, and everything above them be compiled again, twice in each run.
    for (name, _) in std::env::vars_os() {
        let about_us = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ];
        if about_us.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let output = command
        .args([
            "build",
            "--workspace",
            "--bins",
            "--quiet",
            "--profile",
            name,
            "--target-dir",
        ])
        .arg(profile.parent().expect("the target folder"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .output()
        .expect("cargo");
    assert!(
        output.status.success(),
        "the programs don't build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    profile
}

/// A child of ours, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    id: u32,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts a program of the workspace with these arguments, and nothing in its environment but these variables,
    /// `PATH` and `HOME`.
    pub async fn spawn(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn_at(&program(name).await, arguments, environment)
    }

    /// The same with a program anywhere.
    pub fn spawn_at(path: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = AsyncCommand::new(path);
        command.env_clear();
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut child = command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", path.display()));
        let id = child.id().expect("a running child");
        let stdout = collect(child.stdout.take().expect("a pipe"));
        let stderr = collect(child.stderr.take().expect("a pipe"));
        Self {
            child,
            id,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it has said on standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().expect("stdout")).into_owned()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().expect("stderr")).into_owned()
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) -> ExitStatus {
        self.signal("KILL");
        self.wait().await
    }

    /// SIGTERM: asks it to end.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGINT: a Ctrl-C.
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// SIGSTOP: freezes it where it is, as Lambda does.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT: it goes on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        self.child.wait().await.expect("a status")
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a status")
    }

    fn signal(&self, name: &str) {
        // An ended child that wasn't waited for keeps its id: no stranger is hit.
        if self.child.id().is_some() {
            let status = Command::new("kill")
                .args([&format!("-{name}"), &self.id.to_string()])
                .status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "SIG{name} was not delivered"
            );
        }
    }
}

fn collect(mut from: impl AsyncRead + Unpin + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let into = said.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            into.lock().expect("output").extend_from_slice(&buffer[..read]);
        }
    });
    said
}
