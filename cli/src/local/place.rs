//! Owns where the server lives and as whom it runs; not what is put there.
//!
//! PostgreSQL refuses to run as root, and another user can't read root's home. As root everything is under
//! `/var/tmp`, in a folder that root owns and only the server's group may pass through (so that the server's
//! account can't plant a link for root to follow), with the data folder owned by that account.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

const TEMPORARY: &str = "tmp-";
/// Accounts that may run the server for root, the least privileged first: sharing `postgres` with a real
/// server would let a throw-away one read its files.
const ACCOUNTS: [&str; 3] = ["nobody", "postgres", "daemon"];

/// Where Linux has a file system in memory, and what it must have left.
const MEMORY: &str = "/dev/shm";
const LEAST_MEMORY_BYTES: u64 = 4 << 30;

/// The account that runs the server when we are root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub root: PathBuf,
    pub account: Option<Account>,
    pub in_memory: bool,
}

impl Place {
    /// The first candidate that can be made ours.
    pub fn find() -> Result<Self> {
        let uid = id(&["-u"])?;
        let account = if uid == 0 { Some(unprivileged()?) } else { None };
        let mut refused = Vec::new();
        for root in candidates(uid, &|name| std::env::var_os(name).map(PathBuf::from)) {
            match own(&root, uid, account).and_then(|()| probe(&root)) {
                Ok(()) => {
                    return Ok(Self {
                        root,
                        account,
                        in_memory: false,
                    });
                }
                Err(error) => refused.push(format!("  {error:#}")),
            }
        }
        bail!(
            "no folder for the embedded PostgreSQL could be used:\n{}\nset XDG_CACHE_HOME to a folder of yours, or DATABASE_URL to a database",
            refused.join("\n")
        )
    }

    /// A folder of its own within it, for a server of these programs: another major version can't read the same data.
    pub fn apart(self, programs: &Path) -> Result<Self> {
        let name: String = programs
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { '-' })
            .collect();
        let root = self.root.join(format!("other{name}"));
        own(&root, id(&["-u"])?, self.account)?;
        Ok(Self { root, ..self })
    }

    /// A folder of its own in the machine's memory, if there is enough of it; otherwise this one.
    pub fn in_memory(self) -> Self {
        let name = self.root.to_string_lossy().replace('/', "-");
        let root = Path::new(MEMORY).join(name.trim_start_matches(['-', '.']));
        let is_ours = || own(&root, id(&["-u"])?, self.account).and_then(|()| probe(&root));
        if free(Path::new(MEMORY)) < LEAST_MEMORY_BYTES || is_ours().is_err() {
            return self;
        }
        Self {
            root,
            in_memory: true,
            ..self
        }
    }

    /// A lock file that the server's account can lock as well.
    pub fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.root.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        self.give(&path)?;
        Ok(file)
    }

    /// Makes `path` belong to the account that runs the server.
    pub fn give(&self, path: &Path) -> Result<()> {
        match self.account {
            Some(Account { uid, gid }) => {
                chown(path, Some(uid), Some(gid)).with_context(|| format!("cannot give away {}", path.display()))
            }
            None => Ok(()),
        }
    }

    /// Makes a folder of ours that the server's account can pass through.
    pub fn folder(&self, path: &Path) -> Result<()> {
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        if let Some(Account { gid, .. }) = self.account {
            chown(path, None, Some(gid))?;
            fs::set_permissions(path, Permissions::from_mode(0o710))?;
        }
        Ok(())
    }

    /// A name for something unfinished, swept away later should we be killed.
    pub fn temporary(&self, what: &str) -> PathBuf {
        self.root.join(format!(
            "{TEMPORARY}{what}-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        ))
    }

    /// Removes what killed processes left. Only under `setup.lock`. Their children may still be writing there for
    /// a moment; what can't be removed now is in nobody's way and goes next time.
    pub fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY)
                && let Err(error) = remove(&entry.path())
            {
                tracing::debug!(error.message = %format!("{error:#}"), "left for the next sweep");
            }
        }
        Ok(())
    }

    /// A command run as the server's account, away from our terminal, locale and settings.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            )
            // The caller's working folder may be one that the account can't enter.
            .current_dir("/")
            .stdin(Stdio::null())
            // A Ctrl-C at the terminal is for us, not for the server.
            .process_group(0);
        if let Some(Account { uid, gid }) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Removes a file or a folder, and is content when there is none.
pub(super) fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn candidates(uid: u32, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let cache = variable("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| {
            variable("HOME")
                .filter(|path| path.is_absolute())
                .map(|home| home.join(".cache"))
        });
    let shared = Some(PathBuf::from("/var/tmp"))
        .filter(|path| path.is_dir())
        .unwrap_or_else(std::env::temp_dir)
        .join(format!("cronvec-{uid}"));
    match cache {
        Some(cache) if uid != 0 => vec![cache.join("cronvec"), shared],
        _ => vec![shared],
    }
}

/// Creates the folder, or takes one that is there and provably ours.
fn own(path: &Path, uid: u32, account: Option<Account>) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot create {}", path.display()));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    ensure!(found.is_dir(), "{} is not a folder (a link is refused)", path.display());
    ensure!(
        found.uid() == uid,
        "{} belongs to user {}, not to {uid}",
        path.display(),
        found.uid()
    );
    let mode = if account.is_some() { 0o710 } else { 0o700 };
    if let Some(Account { gid, .. }) = account
        && found.gid() != gid
    {
        chown(path, None, Some(gid))?;
    }
    if found.mode() & 0o7777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// A read-only or full file system shows only when something is written.
fn probe(root: &Path) -> Result<()> {
    let path = root.join(format!(
        "probe-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    fs::write(&path, b"probe").with_context(|| format!("cannot write in {}", root.display()))?;
    Ok(fs::remove_file(&path)?)
}

/// Bytes that a file system has left; none where that can't be told.
fn free(folder: &Path) -> u64 {
    let output = Command::new("df").arg("-Pk").arg(folder).output();
    let told = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let told = told.unwrap_or_default();
    let free = told.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
    free.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn unprivileged() -> Result<Account> {
    for name in ACCOUNTS {
        let (Ok(uid), Ok(gid)) = (id(&["-u", name]), id(&["-g", name])) else {
            continue;
        };
        // In a container the account may exist by name and not be mapped.
        let usable = Command::new("true").uid(uid).gid(gid).current_dir("/").status();
        if uid != 0 && usable.is_ok_and(|status| status.success()) {
            return Ok(Account { uid, gid });
        }
    }
    bail!(
        "PostgreSQL does not run as root, and none of the accounts {} can be used to run it: run as an ordinary user, or set DATABASE_URL",
        ACCOUNTS.join(", ")
    )
}

fn id(arguments: &[&str]) -> Result<u32> {
    let output = Command::new("id").args(arguments).output().context("cannot run id")?;
    ensure!(output.status.success(), "id {} failed", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates_with(uid: u32, variables: &[(&str, &str)]) -> Vec<PathBuf> {
        candidates(uid, &|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_folder_comes_before_the_shared_one() {
        assert_eq!(
            candidates_with(7, &[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]),
            [PathBuf::from("/x/cronvec"), "/var/tmp/cronvec-7".into()]
        );
        assert_eq!(
            candidates_with(7, &[("XDG_CACHE_HOME", "x"), ("HOME", "/h")])[0],
            Path::new("/h/.cache/cronvec")
        );
        assert_eq!(candidates_with(7, &[]), [PathBuf::from("/var/tmp/cronvec-7")]);
        assert_eq!(
            candidates_with(0, &[("HOME", "/root")]),
            [PathBuf::from("/var/tmp/cronvec-0")]
        );
    }

    #[test]
    fn a_link_and_a_strangers_folder_are_refused() {
        let uid = id(&["-u"]).unwrap();
        let base = std::env::temp_dir().join(format!("cronvec-place-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let link = base.join("link");
        std::os::unix::fs::symlink("/var", &link).unwrap();
        assert!(own(&link, uid, None).unwrap_err().to_string().contains("not a folder"));
        let stranger = own(&base, uid + 1, None).unwrap_err().to_string();
        assert!(stranger.contains("belongs to user"), "{stranger}");
        own(&base.join("ours"), uid, None).unwrap();
        assert_eq!(fs::metadata(base.join("ours")).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir_all(&base).unwrap();
    }
}
