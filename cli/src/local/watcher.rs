//! Owns the process that outlives us to stop the server when nobody is left; decides nothing else.

use std::process::{Child, Command, Stdio};

use super::cluster::Cluster;
use super::place::Place;

/// Waits until nobody shares `users.lock`, then makes sure of it under `setup.lock`, and stops the server.
/// Between the two a new user may come: then it waits again.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
command -v flock >/dev/null || exit 0
exec 8<"$1" 9<"$2"
while :; do
  flock -x 9 || exit 1
  flock -u 9
  flock -x 8 || exit 1
  if flock -n -x 9; then
    "$3" -D "$4" -m fast -w -t 30 stop || "$3" -D "$4" -m immediate -w -t 30 stop
    exit 0
  fi
  flock -u 8
done
"#;

#[derive(Debug)]
pub(super) struct Watcher(Option<Child>);

impl Watcher {
    /// Where `flock` is missing (macOS) only `Drop` stops the server, and a killed run leaves it to the next.
    pub fn spawn(place: &Place, cluster: &Cluster) -> Self {
        let child = place
            .command("/bin/sh")
            .args(["-c", SCRIPT, "cronvec-local"])
            .arg(place.root.join("setup.lock"))
            .arg(place.root.join("users.lock"))
            .arg(cluster.programs.path("pg_ctl"))
            .arg(cluster.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.ok())
    }

    /// Ends the watcher and whatever it waits with: both are in a process group of their own.
    pub fn dismiss(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = Command::new("kill")
                .args(["-KILL", "--", &format!("-{}", child.id())])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let _ = child.wait();
        }
    }
}
