//! Owns real processes of the workspace's programs: built, started, stopped and killed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command as AsyncCommand};
use tokio::task::JoinHandle;

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
    stdout: Pipe,
    stderr: Pipe,
}

/// What a process came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Its exit code; none when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Process {
    /// Starts a program of the workspace with these arguments, and nothing in its environment but these variables,
    /// `PATH` and `HOME`.
    pub async fn spawn(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn_at(&program(name).await, arguments, environment)
    }

    /// The same with this on its standard input.
    pub async fn spawn_reading(
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        input: impl Into<Vec<u8>>,
    ) -> Self {
        let mut process = Self::launch(&program(name).await, arguments, environment, Stdio::piped());
        let mut stdin = process.child.stdin.take().expect("a pipe");
        let input = input.into();
        tokio::spawn(async move {
            // Who ends early doesn't read it.
            let _ = stdin.write_all(&input).await;
        });
        process
    }

    /// The same with a program anywhere.
    pub fn spawn_at(path: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::launch(path, arguments, environment, Stdio::null())
    }

    fn launch(path: &Path, arguments: &[&str], environment: &[(&str, &str)], stdin: Stdio) -> Self {
        let mut command = AsyncCommand::new(path);
        command.env_clear();
        for name in ["PATH", "HOME", "CRONVEC_POSTGRES"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut child = command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(stdin)
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
        self.stdout.said()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.said()
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

    /// Waits for its end and for all that it said.
    pub async fn outcome(&mut self) -> Outcome {
        let status = self.wait().await;
        Outcome {
            status,
            stdout: self.stdout.whole().await,
            stderr: self.stderr.whole().await,
        }
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

/// What comes out of a process, as it comes.
#[derive(Debug)]
struct Pipe {
    said: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Pipe {
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().expect("output")).into_owned()
    }

    async fn whole(&mut self) -> String {
        if !self.reading.is_finished() {
            // A grandchild that holds it open is a fault of the program.
            let read = tokio::time::timeout(crate::conditions::LIMIT, &mut self.reading).await;
            assert!(read.is_ok(), "somebody keeps the output open");
        }
        self.said()
    }
}

fn collect(mut from: impl AsyncRead + Unpin + Send + 'static) -> Pipe {
    let said = Arc::new(Mutex::new(Vec::new()));
    let into = said.clone();
    let reading = tokio::spawn(async move {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            into.lock().expect("output").extend_from_slice(&buffer[..read]);
        }
    });
    Pipe { said, reading }
}
