//! Owns a use of the server: from the first lock to the last one out. Not how it is installed or started.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::cluster::{Cluster, USER};
use super::place::Place;
use super::watcher::Watcher;
use super::wheel::{Programs, other};

/// A PostgreSQL with pgvector that runs as long as somebody holds one of these.
///
/// Installs, initialises and starts what is missing. Several processes (and several values in one process) share
/// one server; the last one dropped stops it, and one that is killed counts as dropped.
#[derive(Debug)]
pub struct Server {
    place: Place,
    cluster: Cluster,
    port: u16,
    /// Locked shared as long as we live.
    users: File,
    watcher: Watcher,
}

impl Server {
    /// Joins the user's server, set up and started when it has to be. Blocks: seconds the first time.
    pub fn start() -> Result<Self> {
        Self::start_reporting(&|step| tracing::info!(step, "embedded PostgreSQL"))
    }

    /// The same, telling each step that takes time.
    pub fn start_reporting(report: &dyn Fn(&str)) -> Result<Self> {
        let (place, programs, setup) = install(report)?;
        Self::begin(place, programs, setup, report)
    }

    /// A server whose data is in memory, where there is enough of it: to make and drop hundreds of databases is mostly the
    /// file system's work.
    pub fn start_in_memory(report: &dyn Fn(&str)) -> Result<Self> {
        let (place, programs, setup) = install(report)?;
        let place = place.in_memory();
        if !place.in_memory {
            return Self::begin(place, programs, setup, report);
        }
        drop(setup);
        let setup = lock(&place, report)?;
        Self::begin(place, programs, setup, report)
    }

    /// With `setup.lock` held.
    fn begin(place: Place, programs: Programs, setup: File, report: &dyn Fn(&str)) -> Result<Self> {
        let users = place.lock_file("users.lock")?;
        users.lock_shared().context("cannot join the server's users")?;
        let cluster = Cluster::ensure(&place, &programs, report)?;
        // Before the server, so that being killed in between leaves somebody to stop it.
        let mut watcher = Watcher::spawn(&place, &cluster);
        let port = cluster.serve(report).inspect_err(|_| watcher.dismiss())?;
        // The data folder, and its password with it, may have been made anew.
        let cluster = Cluster::ensure(&place, &programs, report)?;
        drop(setup);
        Ok(Self {
            place,
            cluster,
            port,
            users,
            watcher,
        })
    }

    /// A connection string for one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{USER}:{}@127.0.0.1:{}/{database}",
            self.cluster.password, self.port
        )
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's name and password.
    pub fn credentials(&self) -> (&str, &str) {
        (USER, &self.cluster.password)
    }

    /// The account that runs the server, as user and group, when we are root.
    pub fn runs_as(&self) -> Option<(u32, u32)> {
        self.place.account.map(|account| (account.uid, account.gid))
    }

    /// The folder of PostgreSQL's programs.
    pub fn programs(&self) -> &Path {
        self.cluster.programs.folder()
    }

    /// Creates a database, unless it is there.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let output = self
            .cluster
            .client("createdb", self.port)
            .arg(name)
            .output()
            .context("cannot run createdb")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() || said.contains("already exists"),
            "database {name} cannot be created: {}",
            said.trim()
        );
        Ok(())
    }

    /// Leaves the server, and stops it if nobody else uses it. Dropping does the same and keeps errors to itself.
    pub fn stop(mut self) -> Result<()> {
        self.leave()
    }

    fn leave(&mut self) -> Result<()> {
        let setup = self.place.lock_file("setup.lock")?;
        setup.lock()?;
        self.watcher.dismiss();
        self.users.unlock()?;
        // A watcher that holds it for a moment finds nobody left either, and stops the server itself.
        if self.users.try_lock().is_ok() {
            self.cluster.stop()?;
            self.users.unlock()?;
        }
        Ok(())
    }
}

/// The programs, and `setup.lock` of their folder.
fn install(report: &dyn Fn(&str)) -> Result<(Place, Programs, File)> {
    let own = other();
    let place = match &own {
        Some(programs) => Place::find()?.apart(programs)?,
        None => Place::find()?,
    };
    let setup = lock(&place, report)?;
    let programs = match own {
        Some(folder) => Programs::found(folder, &place)?,
        None => Programs::ensure(&place, report)?,
    };
    Ok((place, programs, setup))
}

fn lock(place: &Place, report: &dyn Fn(&str)) -> Result<File> {
    let setup = place.lock_file("setup.lock")?;
    if setup.try_lock().is_err() {
        report("waiting for another run that is setting up the database");
        setup.lock().context("cannot lock the set-up")?;
    }
    place.sweep()?;
    Ok(setup)
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::warn!(error.message = %error, "the embedded PostgreSQL was not left in order");
        }
    }
}
