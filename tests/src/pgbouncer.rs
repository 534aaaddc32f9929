//! Owns PgBouncer in transaction mode in front of the test server, where it is installed.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cronvec::local::Server;
use tokio_postgres::NoTls;

use crate::conditions::eventually;
use crate::database::{Database, server};
use crate::skipped;

/// A pooler of one's own.
#[derive(Debug)]
pub struct PgBouncer {
    program: PathBuf,
    /// Connections to each database.
    size: usize,
    port: u16,
    credentials: (String, String),
    child: Option<Child>,
}

/// It ends with us, however we end: then standard input does.
const SCRIPT: &str = r#""$1" -q "$2" & pid=$!; read -r _; kill -TERM $pid; wait $pid; rm -rf "$3""#;

impl PgBouncer {
    /// None, said aloud, where it isn't installed.
    pub async fn start() -> Option<Self> {
        Self::with_pool(20).await
    }

    /// The same with so many connections to each database.
    pub async fn with_pool(size: usize) -> Option<Self> {
        let Some(program) = find() else {
            skipped("pgbouncer is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .expect("a port")
            .port();
        let (user, password) = server().await.credentials();
        let mut started = Self {
            program,
            size,
            port,
            credentials: (user.into(), password.into()),
            child: None,
        };
        started.launch().await;
        Some(started)
    }

    /// Ends it, with all its connections, and starts it anew at the same port.
    pub async fn restart(&mut self) {
        self.end();
        self.launch().await;
    }

    async fn launch(&mut self) {
        let server = server().await;
        let folder = std::env::temp_dir().join(format!("pgbouncer-{:016x}", rand::random::<u64>()));
        let settings = configure(server, self.port, self.size, &folder);
        let mut command = Command::new("/bin/sh");
        if let Some((uid, gid)) = server.runs_as() {
            command.uid(uid).gid(gid);
        }
        let child = command
            .args(["-c", SCRIPT, "pgbouncer"])
            .args([&self.program, &settings, &folder])
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer");
        self.child = Some(child);
        let url = self.url_of("postgres");
        eventually("pgbouncer answers", || async {
            let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
                return false;
            };
            let connection = tokio::spawn(connection);
            let answers = client.query_typed("SELECT 1", &[]).await.is_ok();
            connection.abort();
            answers
        })
        .await;
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The connection string of a test's database through the pooler.
    pub fn url(&self, database: &Database) -> String {
        self.url_of(database.name())
    }

    fn url_of(&self, database: &str) -> String {
        let (user, password) = &self.credentials;
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.end();
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts it where an ordinary user's PATH doesn't look.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
}

fn configure(server: &Server, port: u16, pool: usize, folder: &Path) -> PathBuf {
    let (user, password) = server.credentials();
    let users = folder.join("users.txt");
    let settings = folder.join("pgbouncer.ini");
    fs::create_dir(folder).expect("a folder");
    fs::set_permissions(folder, Permissions::from_mode(0o700)).expect("a closed folder");
    fs::write(&users, format!("\"{user}\" \"{password}\"\n")).expect("users");
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
         max_client_conn = 500\ndefault_pool_size = {pool}\nlogfile = {}\n",
        server.port(),
        users.display(),
        folder.join("pgbouncer.log").display(),
    );
    fs::write(&settings, text).expect("settings");
    if let Some((uid, gid)) = server.runs_as() {
        for path in [folder, &users, &settings] {
            chown(path, Some(uid), Some(gid)).expect("a change of owner");
        }
    }
    settings
}
