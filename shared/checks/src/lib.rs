//! Owns what is looked at to say whether all is well: each check says what it found and, if that isn't right, the mend.
//! Refuses to mend anything.

use serde::{Deserialize, Serialize};

use cronvec_nouns::token::Reach;
use cronvec_store::migrate::SchemaError;
use cronvec_store::selection::JobFilter;
use cronvec_store::workers::WorkerStatus;
use cronvec_store::{Store, StoreError};

/// A worker that is called every minute, or every five under a web server's schedule, was seen within this.
const MINUTES_UNSEEN: f64 = 12.0;
/// The daily one, with a missed day.
const HOURS_UNSEEN: f64 = 49.0;
/// A job that could have been claimed for so long has nobody to claim it.
pub const MINUTES_WAITED: f64 = 15.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Worth knowing; nothing stands still for it.
    Warn,
    Fail,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    pub check: String,
    pub status: Verdict,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Check {
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            status: Verdict::Ok,
            found: found.into(),
            mend: None,
        }
    }

    pub fn warn(check: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            status: Verdict::Warn,
            mend: Some(mend.into()),
            ..Self::ok(check, found)
        }
    }

    pub fn fail(check: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            status: Verdict::Fail,
            ..Self::warn(check, found, mend)
        }
    }
}

pub fn all_well(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.status != Verdict::Fail)
}

/// Whether the database answers; the check and whether it is any use to look further.
pub async fn database(store: &Store) -> (Check, bool) {
    let began = std::time::Instant::now();
    match store.database().check().await {
        Ok(()) => {
            let label = store.database().label();
            let found = format!("{label} answers in {} ms", began.elapsed().as_millis());
            (Check::ok("database", found), true)
        }
        Err(error) => (
            Check::fail(
                "database",
                error.to_string(),
                "see that the server is up and DATABASE_URL right",
            ),
            false,
        ),
    }
}

/// Whether the schema serves this program, by its version.
pub async fn schema(store: &Store) -> (Check, bool) {
    match store.check_schema().await {
        Ok(()) => (Check::ok("schema", "serves this program"), true),
        Err(error) => {
            let mend = match &error {
                StoreError::Schema(SchemaError::TooNew { .. }) => "run a newer cronvec",
                _ => "cronvec migrate up",
            };
            (Check::fail("schema", error.to_string(), mend), false)
        }
    }
}

/// The rest, on a database whose schema is right, of these projects.
pub async fn queue(store: &Store, reach: &Reach) -> Result<Vec<Check>, StoreError> {
    let mut checks = workers(store).await?;
    checks.push(oldest(store, reach).await?);
    checks.push(circuits(store, reach).await?);
    checks.push(stuck(store, reach).await?);
    checks.extend(tables(store, reach).await?);
    Ok(checks)
}

/// Attached tables that can't be read, or not all of them; others are told of by `doctor`.
async fn tables(store: &Store, reach: &Reach) -> Result<Option<Check>, StoreError> {
    let mut troubled = store.troubled_sources().await?;
    troubled.retain(|source| reach.includes(&source.project));
    // The one at which everything stands comes first.
    troubled.sort_by_key(|source| !source.rests);
    let Some(worst) = troubled.first() else {
        return Ok(None);
    };
    let found = format!("{}: {}", worst.table, worst.trouble);
    let mend = format!(
        "mend what it says, then: cronvec reconcile {}; `cronvec doctor` says more",
        worst.project
    );
    Ok(Some(match worst.rests {
        true => Check::fail("attached tables", found, mend),
        false => Check::warn("attached tables", found, mend),
    }))
}

async fn workers(store: &Store) -> Result<Vec<Check>, StoreError> {
    let installed = store.seconds_installed().await?;
    let seen = store.worker_statuses().await?;
    let now = time_now(store).await?;
    Ok(["ingestion", "vectorization", "cleanup"]
        .into_iter()
        .map(|name| worker(name, seen.iter().find(|worker| worker.name == name), installed, now))
        .collect())
}

/// The database's clock: ours may be off.
async fn time_now(store: &Store) -> Result<f64, StoreError> {
    store.seconds_of_clock().await
}

fn worker(name: &str, seen: Option<&WorkerStatus>, installed: f64, now: f64) -> Check {
    let check = format!("worker {name}");
    let minutes_allowed = if name == "cleanup" {
        HOURS_UNSEEN * 60.0
    } else {
        MINUTES_UNSEEN
    };
    let mend = format!(
        "call it on a schedule: a rule for its function, a web server's cron of /api/workers/{name}, `cronvec serve`, or `cronvec tick {name}` by hand"
    );
    let Some(seen) = seen else {
        let found = "never seen: no schedule calls it".to_owned();
        return if installed / 60.0 > minutes_allowed {
            Check::fail(check, found, mend)
        } else {
            Check::warn(check, found, mend)
        };
    };
    #[allow(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let minutes = (now - seen.last_seen_at.unix_timestamp() as f64) / 60.0;
    let found = format!("last seen {} ago", ago(minutes));
    if minutes > minutes_allowed {
        return Check::fail(check, format!("{found}: nobody calls it"), mend);
    }
    match seen.last_result.as_ref().and_then(|result| result.get("error")) {
        Some(error) => Check::warn(
            check,
            format!("{found}; its last pass failed: {}", error.as_str().unwrap_or("?")),
            "see its log",
        ),
        None => Check::ok(check, found),
    }
}

fn ago(minutes: f64) -> String {
    match minutes {
        minutes if minutes < 1.0 => "less than a minute".to_owned(),
        minutes if minutes < 120.0 => format!("{minutes:.0} minutes"),
        minutes if minutes < 2880.0 => format!("{:.0} hours", minutes / 60.0),
        minutes => format!("{:.0} days", minutes / 1440.0),
    }
}

async fn oldest(store: &Store, reach: &Reach) -> Result<Check, StoreError> {
    Ok(match store.oldest_pending_of(reach).await? {
        None => Check::ok("oldest pending", "no job waits"),
        Some(oldest) if oldest.age_minutes > MINUTES_WAITED => Check::fail(
            "oldest pending",
            format!("job {} could be claimed for {} now", oldest.id, ago(oldest.age_minutes)),
            "more workers, a faster schedule or `cronvec backfill --parallel`; `cronvec doctor` says what else keeps it",
        ),
        Some(oldest) => Check::ok(
            "oldest pending",
            format!("job {}, {}", oldest.id, ago(oldest.age_minutes)),
        ),
    })
}

async fn circuits(store: &Store, reach: &Reach) -> Result<Check, StoreError> {
    let rests = store.rests_of(reach).await?;
    if let Some(open) = rests.iter().find(|rest| rest.circuit) {
        return Ok(Check::fail(
            "circuits",
            format!("{} is shut off: {}", open.endpoint, open.why),
            "mend what the message says, then: cronvec provider test",
        ));
    }
    Ok(match rests.first() {
        Some(rest) => Check::warn(
            "circuits",
            format!("{} rests for {:.0} s: {}", rest.endpoint, rest.seconds_left, rest.why),
            "nothing: work goes on by itself; if it happens often, ask the provider for a higher limit or lower EMBEDDING_CONCURRENT_REQUESTS",
        ),
        None => Check::ok("circuits", "every provider may be asked"),
    })
}

async fn stuck(store: &Store, reach: &Reach) -> Result<Check, StoreError> {
    let mut all = store.stuck(&JobFilter::default(), MINUTES_WAITED).await?;
    all.retain(|stuck| reach.includes(&stuck.project));
    // A lease that has just run out is taken over by the next tick.
    let bad = all.iter().find(|stuck| match stuck.kind.as_str() {
        "lease_expired" => stuck.minutes > 5.0,
        "crashing" | "held" => true,
        _ => false,
    });
    if let Some(bad) = bad {
        return Ok(Check::fail(
            "stuck jobs",
            format!("job {} of project {}: {}", bad.job_id, bad.project, bad.message),
            bad.mend.clone(),
        ));
    }
    if let Some(held) = all.iter().find(|stuck| stuck.kind == "lane_held") {
        return Ok(Check::warn("stuck jobs", held.message.clone(), held.mend.clone()));
    }
    Ok(match all.iter().find(|stuck| stuck.kind == "not_held") {
        Some(left) => Check::warn(
            "stuck jobs",
            format!("job {} of project {}: {}", left.job_id, left.project, left.message),
            left.mend.clone(),
        ),
        None => Check::ok("stuck jobs", "none"),
    })
}
