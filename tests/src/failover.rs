//! Owns two servers with the same data, one of which is a reader, as a cluster has them, and the way to the one that is
//! asked for.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use cronvec_store::{self as store, Store, migrate};
use tokio_postgres::{Client, NoTls};

use crate::conditions::eventually;
use crate::database::{connect, server};
use crate::proxy::Proxy;

const USER: &str = "cronvec";
const DATABASE: &str = "shop";
const SETTINGS: [&str; 7] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "shared_buffers=32MB",
    "max_connections=30",
    "autovacuum=off",
    "log_min_messages=panic",
];

/// It ends with us, however we end: then standard input does.
const SCRIPT: &str = r#""$@" & pid=$!; read -r _; kill -INT $pid; wait $pid"#;

/// A writer, and a reader that has its data of the moment when it was made.
pub struct Pair {
    folder: PathBuf,
    writer: Option<Server>,
    reader: Option<Server>,
    pub way: Proxy,
}

struct Server {
    port: u16,
    child: Child,
}

impl Pair {
    /// With our schema, and what `prepare` makes; the way leads to the writer.
    pub async fn start(prepare: impl AsyncFnOnce(&Store)) -> Self {
        let programs = programs().await;
        let folder = std::env::temp_dir().join(format!("failover-{:016x}", rand::random::<u64>()));
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("an open folder");
        let (data, copy) = (folder.join("writer"), folder.join("reader"));
        fs::create_dir(&data).expect("a folder");
        give(&data).await;
        let made = as_server(&programs.join("initdb"))
            .await
            .arg("-D")
            .arg(&data)
            .args([
                "-U",
                USER,
                "-A",
                "trust",
                "-N",
                "--locale=C",
                "--encoding=UTF8",
                "--no-instructions",
            ])
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

        let first = Server::start(&programs, &data).await;
        let sql = connect(&first.url("postgres")).await;
        sql.batch_execute(&format!("CREATE DATABASE {DATABASE}"))
            .await
            .expect("a database");
        let mut sql = connect(&first.url(DATABASE)).await;
        migrate::up(&mut sql).await.expect("the schema");
        let store = Store::new(store::Database::at(&first.url(DATABASE), 2).expect("an address"));
        prepare(&store).await;
        drop((sql, store));
        first.stop();
        let copied = as_server(Path::new("cp"))
            .await
            .arg("-r")
            .arg(&data)
            .arg(&copy)
            .output();
        // Into the folder, which is ours.
        if !copied.is_ok_and(|copied| copied.status.success()) {
            let status = Command::new("cp").arg("-rp").arg(&data).arg(&copy).status();
            assert!(status.expect("cp").success(), "a copy of the data");
        }
        fs::write(copy.join("standby.signal"), "").expect("a signal");
        give(&copy.join("standby.signal")).await;

        let writer = Server::start(&programs, &data).await;
        let reader = Server::start(&programs, &copy).await;
        Self {
            way: Proxy::to_port(writer.port).await,
            folder,
            writer: Some(writer),
            reader: Some(reader),
        }
    }

    /// Where the application connects.
    pub fn url(&self) -> String {
        url(self.way.address().port(), DATABASE)
    }

    /// A store as an application has it.
    pub fn store(&self) -> Arc<Store> {
        Arc::new(Store::new(store::Database::at(&self.url(), 2).expect("an address")))
    }

    /// A connection to the writer beside it all.
    pub async fn sql(&self) -> Client {
        let writer = self.writer.as_ref().expect("a writer");
        connect(&writer.url(DATABASE)).await
    }

    /// All connections break, and new ones lead to the reader.
    pub async fn fail_over(&mut self) {
        self.way.close().await;
        self.way.lead_to_port(self.reader.as_ref().expect("a reader").port);
        self.way.open();
    }

    /// New connections lead to the writer; those to the reader stay.
    pub fn lead_to_writer(&self) {
        self.way.lead_to_port(self.writer.as_ref().expect("a writer").port);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for server in [self.writer.take(), self.reader.take()].into_iter().flatten() {
            server.stop();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    async fn start(programs: &Path, data: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .expect("a port")
            .port();
        let mut command = as_server(Path::new("/bin/sh")).await;
        command.args(["-c", SCRIPT, "postgres"]).arg(programs.join("postgres"));
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        let url = url(port, "postgres");
        eventually("the server answers", || async {
            let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
                return false;
            };
            let connection = tokio::spawn(connection);
            let answers = client.query_typed("SELECT 1", &[]).await.is_ok();
            connection.abort();
            answers
        })
        .await;
        Self { port, child }
    }

    fn url(&self, database: &str) -> String {
        url(self.port, database)
    }

    /// In order, so that its data can be copied.
    fn stop(mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/{database}")
}

/// The folder of the programs that the tests' server runs.
async fn programs() -> PathBuf {
    let sql = connect(&server().await.url("postgres")).await;
    let rows = sql
        .query_typed("SELECT setting FROM pg_config WHERE name = 'BINDIR'", &[])
        .await
        .expect("its configuration");
    PathBuf::from(rows[0].get::<_, String>(0))
}

/// A program as the account that runs the tests' server.
async fn as_server(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = server().await.runs_as() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/");
    command
}

async fn give(path: &Path) {
    if let Some((uid, gid)) = server().await.runs_as() {
        chown(path, Some(uid), Some(gid)).expect("a change of owner");
    }
}
