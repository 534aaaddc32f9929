//! Owns a PostgreSQL that one test has for itself, and may restart; its programs are those of the server that all share.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::database::{connect, server};

const USER: &str = "storm";
/// The data is thrown away: nothing is flushed.
const SETTINGS: &str = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c synchronous_commit=off \
    -c full_page_writes=off -c max_connections=100 -c timezone=UTC -c log_timezone=UTC";
/// It ends with us, however we end: then standard input does.
const WATCH: &str = r#"read -r _; "$1" -D "$2" -m immediate -w stop; rm -rf "$3""#;

/// A server in a folder of its own. It is stopped and removed when dropped.
#[derive(Debug)]
pub struct OwnServer {
    programs: PathBuf,
    folder: PathBuf,
    account: Option<(u32, u32)>,
    port: u16,
    password: String,
    watcher: Option<Child>,
}

impl OwnServer {
    pub async fn start() -> Self {
        let shared = server().await;
        let client = connect(&shared.url("postgres")).await;
        let rows = client
            .query_typed("SELECT setting FROM pg_config WHERE name = 'BINDIR'", &[])
            .await
            .expect("the programs' folder");
        let mut own = Self {
            programs: PathBuf::from(rows[0].get::<_, String>(0)),
            folder: std::env::temp_dir().join(format!("cronvec-own-{:016x}", rand::random::<u64>())),
            account: shared.runs_as(),
            port: free_port(),
            password: format!("{:032x}", rand::random::<u128>()),
            watcher: None,
        };
        tokio::task::spawn_blocking(move || {
            own.create();
            own.control(&["-w", "start"]);
            own
        })
        .await
        .expect("a thread")
    }

    /// A connection string for one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it, which ends every connection, and starts it again. Blocks.
    pub fn restart(&self) {
        self.control(&["-m", "fast", "-w", "restart"]);
    }

    fn create(&mut self) {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.folder)
            .expect("a folder");
        let password = self.folder.join("password");
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&password);
        file.as_mut()
            .map(|file| file.write_all(self.password.as_bytes()))
            .expect("a file")
            .expect("a password");
        if let Some((uid, gid)) = self.account {
            for path in [&self.folder, &password] {
                chown(path, Some(uid), Some(gid)).expect("a change of owner");
            }
        }
        let made = self
            .command(&self.programs.join("initdb"))
            .arg("-D")
            .arg(self.data())
            .args(["-U", USER, "--locale=C", "--encoding=UTF8", "--auth=scram-sha-256"])
            .args(["--no-sync", "--no-instructions", "--pwfile"])
            .arg(&password)
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let watcher = self
            .command(Path::new("/bin/sh"))
            .args(["-c", WATCH, "own-server"])
            .args([self.programs.join("pg_ctl"), self.data(), self.folder.clone()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.watcher = Some(watcher.expect("a watcher"));
    }

    fn control(&self, what: &[&str]) {
        // To a file: who waits for the end of a pipe that the server has, too, waits for the server's.
        let status = self
            .command(&self.programs.join("pg_ctl"))
            .arg("-D")
            .arg(self.data())
            .arg("-l")
            .arg(self.folder.join("log"))
            .args(["-s", "-t", "60", "-o", &format!("-p {} {SETTINGS}", self.port)])
            .args(what)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(
            status.is_ok_and(|status| status.success()),
            "pg_ctl {what:?}: {}",
            log()
        );
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
    }
}

/// Of no range that systems give away by themselves: while the server restarts, somebody might get it.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(16_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
