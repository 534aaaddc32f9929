//! What `health` and `doctor` look at, one after another: each says what it found and, if that isn't right, the mend.

use serde::Serialize;
use shared::config::AppEnv;
use shared::store::selection::JobFilter;
use shared::store::workers::WorkerStatus;

use crate::app::App;
use crate::output::{Align, Table};

/// A worker that is called every minute, or every five under a web server's schedule, was seen within this.
const MINUTES_UNSEEN: f64 = 12.0;
/// The daily one, with a missed day.
const HOURS_UNSEEN: f64 = 49.0;
/// A job that could have been claimed for so long has nobody to claim it.
pub(crate) const MINUTES_WAITED: f64 = 15.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// Worth knowing; nothing stands still for it.
    Warn,
    Fail,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
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

pub(crate) fn all_well(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.status != Verdict::Fail)
}

pub(crate) fn table(checks: &[Check]) -> Table {
    let columns = [("", Align::Left), ("check", Align::Left), ("found", Align::Left)];
    let mut table = Table::new(&columns, "nothing was checked");
    for check in checks {
        let mark = match check.status {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        table.row([mark.to_owned(), check.check.clone(), check.found.clone()]);
        if let Some(mend) = &check.mend {
            table.row([String::new(), String::new(), format!("→ {mend}")]);
        }
    }
    table
}

/// Whether the database answers; the check and whether it is any use to look further.
pub(crate) async fn database(app: &App) -> (Check, bool) {
    let began = std::time::Instant::now();
    match app.store().database().check().await {
        Ok(()) => {
            let label = app.store().database().label();
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

/// Whether the schema is this program's, by its version.
pub(crate) async fn schema(app: &App) -> (Check, bool) {
    match app.check_schema().await {
        Ok(()) => (Check::ok("schema", "is this program's"), true),
        Err(error) => (Check::fail("schema", error.to_string(), "cronvec migrate up"), false),
    }
}

/// The rest of what `health` looks at, on a database whose schema is right.
pub(crate) async fn queue(app: &App) -> anyhow::Result<Vec<Check>> {
    let mut checks = workers(app).await?;
    checks.push(oldest(app).await?);
    checks.push(circuits(app).await?);
    checks.push(stuck(app).await?);
    Ok(checks)
}

async fn workers(app: &App) -> anyhow::Result<Vec<Check>> {
    let installed = app.store().seconds_installed().await?;
    let seen = app.store().worker_statuses().await?;
    let now = time_now(app).await?;
    Ok(["ingestion", "vectorization", "cleanup"]
        .into_iter()
        .map(|name| worker(name, seen.iter().find(|worker| worker.name == name), installed, now))
        .collect())
}

/// The database's clock: ours may be off.
async fn time_now(app: &App) -> anyhow::Result<f64> {
    Ok(app.store().seconds_of_clock().await?)
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

async fn oldest(app: &App) -> anyhow::Result<Check> {
    Ok(match app.store().oldest_pending_job().await? {
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

async fn circuits(app: &App) -> anyhow::Result<Check> {
    let pauses = app.store().pauses(None).await?;
    if let Some(open) = pauses.iter().find(|pause| pause.circuit) {
        return Ok(Check::fail(
            "circuits",
            format!("{} is shut off: {}", open.endpoint, open.message),
            "mend what the message says, then: cronvec provider test",
        ));
    }
    Ok(match pauses.first() {
        Some(pause) => Check::warn(
            "circuits",
            format!(
                "{} rests for {:.0} s: {}",
                pause.endpoint, pause.seconds_left, pause.message
            ),
            "nothing: work goes on by itself; if it happens often, ask the provider for a higher limit or lower EMBEDDING_CONCURRENT_REQUESTS",
        ),
        None => Check::ok("circuits", "every provider may be asked"),
    })
}

async fn stuck(app: &App) -> anyhow::Result<Check> {
    let all = app.store().stuck(&JobFilter::default(), MINUTES_WAITED).await?;
    // A lease that has just run out is taken over by the next tick.
    let bad = all.iter().find(|stuck| match stuck.kind.as_str() {
        "lease_expired" => stuck.minutes > 5.0,
        "crashing" => true,
        _ => false,
    });
    if let Some(bad) = bad {
        return Ok(Check::fail(
            "stuck jobs",
            format!("job {} of project {}: {}", bad.job_id, bad.project, bad.message),
            bad.mend.clone(),
        ));
    }
    Ok(match all.iter().find(|stuck| stuck.kind == "lane_held") {
        Some(held) => Check::warn("stuck jobs", held.message.clone(), held.mend.clone()),
        None => Check::ok("stuck jobs", "none"),
    })
}

/// What the environment lacks.
pub(crate) fn secret(app: &App) -> Check {
    let settings = app.settings();
    let mend = "set CRON_SECRET, or CRON_SECRET_ARN, to a long random value, and give the schedules the same";
    match (&settings.cron_secret, settings.app_env) {
        (Some(_), _) => Check::ok("secret", "CRON_SECRET is set"),
        (None, AppEnv::Production) => Check::fail(
            "secret",
            "CRON_SECRET is not set: in production every worker call is answered 500",
            mend,
        ),
        (None, AppEnv::Development) => Check::warn(
            "secret",
            "CRON_SECRET is not set: in production worker calls would be answered 500",
            mend,
        ),
    }
}
