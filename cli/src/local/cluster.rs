//! Owns the data folder and the server process on it; not who may use it or when it ends.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::place::{Place, remove};
use super::wheel::Programs;

/// The server's superuser.
pub(super) const USER: &str = "cronvec";
const NAME: &str = "cluster-18";
const LOG_LIMIT_BYTES: u64 = 10 * 1024 * 1024;
/// For data that may be thrown away: nothing is flushed. Passed at each start, so that a newer version of ours
/// changes them for data folders that are there.
const SETTINGS: &str = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off \
    -c synchronous_commit=off -c full_page_writes=off -c max_connections=200 -c shared_buffers=256MB \
    -c log_min_error_statement=panic -c timezone=UTC -c log_timezone=UTC";
const LOG_ON_DISK: &str = "-c max_wal_size=4GB";
const LOG_IN_MEMORY: &str = "-c max_wal_size=256MB -c wal_recycle=off";
/// A server that is starting, recovering or stopping gets this long to make up its mind.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Cluster {
    place: Place,
    pub programs: Programs,
    folder: PathBuf,
    pub password: String,
}

impl Cluster {
    /// The data folder that is there, or a new one. Only under `setup.lock`.
    pub fn ensure(place: &Place, programs: &Programs, report: &dyn Fn(&str)) -> Result<Self> {
        let folder = place.root.join(NAME);
        if !folder.is_dir() {
            report("creating the database's data folder");
            create(place, programs, &folder)?;
        }
        let password = fs::read_to_string(folder.join("password")).context("cannot read the server's password")?;
        Ok(Self {
            place: place.clone(),
            programs: programs.clone(),
            folder,
            password,
        })
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The port of a server that answers, started if there was none. Only under `setup.lock`.
    pub fn serve(&self, report: &dyn Fn(&str)) -> Result<u16> {
        if let Some(port) = self.running()? {
            return Ok(port);
        }
        report("starting PostgreSQL");
        let first = match self.start() {
            Ok(port) => return Ok(port),
            Err(error) => error,
        };
        // Without fsync, a machine that went down may leave data that can't be opened.
        report("the data folder can't be opened: it is set aside, and a new one is made");
        let aside = self.place.root.join(format!("{NAME}-set-aside"));
        let unopened = self.place.root.join(format!("{NAME}-unopened"));
        remove(&unopened)?;
        fs::rename(&self.folder, &unopened)?;
        let second = create(&self.place, &self.programs, &self.folder).and_then(|()| {
            let renewed = Self::ensure(&self.place, &self.programs, report)?;
            renewed.start()
        });
        match second {
            Ok(port) => {
                remove(&aside)?;
                fs::rename(&unopened, &aside)?;
                Ok(port)
            }
            // It wasn't the data's fault: give it back.
            Err(_) => {
                remove(&self.folder)?;
                fs::rename(&unopened, &self.folder)?;
                Err(first)
            }
        }
    }

    /// Ends the server, if one runs. Only under `setup.lock`.
    pub fn stop(&self) -> Result<()> {
        if self.owner()?.is_none() {
            return Ok(());
        }
        for mode in ["fast", "immediate"] {
            let stopped = self.control().args(["-m", mode, "-w", "-t", "30", "stop"]).output()?;
            if stopped.status.success() || self.owner()?.is_none() {
                return Ok(());
            }
        }
        bail!("PostgreSQL on {} does not stop", self.data().display())
    }

    /// Runs a client program against the server.
    pub fn client(&self, program: &str, port: u16) -> Command {
        let mut command = self.place.command(self.programs.path(program));
        command
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "10")
            .args(["-h", "127.0.0.1", "-U", USER, "-p", &port.to_string()]);
        command
    }

    fn running(&self) -> Result<Option<u16>> {
        let begun = Instant::now();
        while let Some(port) = self.owner()? {
            if let Some(port) = port
                && self.answers(port)
            {
                return Ok(Some(port));
            }
            if begun.elapsed() > PATIENCE {
                self.stop()?;
            }
            sleep(Duration::from_millis(50));
        }
        Ok(None)
    }

    fn answers(&self, port: u16) -> bool {
        self.client("psql", port)
            .args(["-X", "-d", "postgres", "-Atc", "SELECT 1"])
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// Some when a server lives on this data folder, with its port if it has one already. A file left by a
    /// killed one is removed: PostgreSQL would refuse to start if its process id belongs to somebody by now.
    fn owner(&self) -> Result<Option<Option<u16>>> {
        let path = self.data().join("postmaster.pid");
        let Ok(file) = fs::read_to_string(&path) else {
            return Ok(None);
        };
        let mut lines = file.lines();
        let pid: Option<u32> = lines.next().and_then(|line| line.trim().parse().ok());
        let port = lines.nth(2).and_then(|line| line.trim().parse().ok());
        if pid.is_some_and(|pid| command_line(pid).contains(&self.data().display().to_string())) {
            return Ok(Some(port));
        }
        remove(&path)?;
        Ok(None)
    }

    fn start(&self) -> Result<u16> {
        let log = self.data().join("server.log");
        if fs::symlink_metadata(&log).is_ok_and(|found| found.len() > LOG_LIMIT_BYTES) {
            remove(&log)?;
        }
        let of_log = if self.place.in_memory {
            LOG_IN_MEMORY
        } else {
            LOG_ON_DISK
        };
        let mut said = String::new();
        for _ in 0..4 {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            let output = self
                .control()
                .arg("-l")
                .arg(&log)
                .args([
                    "-w",
                    "-t",
                    "60",
                    "-o",
                    &format!("-p {port} {SETTINGS} {of_log}"),
                    "start",
                ])
                .output()?;
            if output.status.success() && self.answers(port) {
                return Ok(port);
            }
            // Somebody took the port, or backends of a killed server haven't noticed yet.
            said = format!("{}{}", text(&output), tail(&log));
            let _ = self.stop();
            sleep(Duration::from_millis(500));
        }
        bail!("PostgreSQL does not start: {said}")
    }

    fn control(&self) -> Command {
        let mut command = self.place.command(self.programs.path("pg_ctl"));
        command.arg("-D").arg(self.data());
        command
    }
}

fn create(place: &Place, programs: &Programs, folder: &Path) -> Result<()> {
    let unfinished = place.temporary("cluster");
    place.folder(&unfinished)?;
    let data = unfinished.join("data");
    place.folder(&data)?;
    place.give(&data)?;
    let password: String = rand::random::<[u8; 16]>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    write_secret(&unfinished.join("password"), &password)?;
    // The server's account can't read our file: it gets one for the moment.
    let passing = unfinished.join("password-for-initdb");
    write_secret(&passing, &password)?;
    place.give(&passing)?;
    let output = place
        .command(programs.path("initdb"))
        .arg("-D")
        .arg(&data)
        .args([
            "-U",
            USER,
            "--locale=C",
            "--encoding=UTF8",
            "--auth=scram-sha-256",
            "--no-sync",
            "--no-instructions",
        ])
        .arg("--pwfile")
        .arg(&passing)
        .output()
        .context("cannot run initdb")?;
    ensure!(output.status.success(), "initdb failed: {}", text(&output));
    remove(&passing)?;
    fs::rename(&unfinished, folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(secret.as_bytes())?)
}

/// What runs under this id, or nothing.
fn command_line(pid: u32) -> String {
    if Path::new("/proc/self/cmdline").exists() {
        return fs::read(format!("/proc/{pid}/cmdline"))
            .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            .unwrap_or_default();
    }
    let ps = Command::new("ps")
        .args(["-o", "command=", "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .output();
    ps.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn tail(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
