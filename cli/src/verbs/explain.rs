//! `explain RECORD`: the one thing that keeps a record from being embedded, or when and by what it was.

use anyhow::{Context as _, Result};
use cronvec_nouns::space::{Space, SpaceSpec};
use cronvec_pipeline::Unserved;
use cronvec_store::audit::FailedAttempt;
use cronvec_store::column::COLUMN_REFUSED;
use cronvec_store::explain::{RecordFacts, RowFacts};
use serde::Serialize;

use super::{project_or_only, ready};
use crate::Context;
use crate::app::App;
use crate::exit::Ended;

/// Nobody has called the worker for so long.
const SECONDS_UNSEEN: f64 = 720.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    record: String,
    /// Where it is; may be left out while there is only one project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    project: String,
    record: String,
    /// A word for scripts, see `docs/CLI.md`.
    state: &'static str,
    because: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
    /// Why comparisons with the project's table leave it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// Attempts at it that failed, as far as the audit log has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed_attempts: Vec<FailedAttempt>,
    /// It is found by the vectors of a former text.
    stale: bool,
    embedded_at: Option<String>,
    chunks: Option<i32>,
    space: Option<SpaceSpec>,
}

struct Reason {
    state: &'static str,
    because: String,
    mend: Option<String>,
}

fn reason(state: &'static str, because: impl Into<String>, mend: Option<&str>) -> Reason {
    Reason {
        state,
        because: because.into(),
        mend: mend.map(str::to_owned),
    }
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let project = project_or_only(&app, args.project).await?;
    let facts = app.store().record_facts(&project, &args.record).await?;
    let space = app.spaces().await?.into_iter().find(|space| space.id == facts.space_id);
    let failed_attempts = app.store().failed_attempts(&project, &args.record).await?;
    let judged = judge(&app, &facts, space.as_ref(), &project).await?;
    let Reason { state, because, mend } = match facts.table.as_deref().filter(|_| !facts.known) {
        Some(table) => of_the_row(&app, &project, table, &args.record).await.unwrap_or(judged),
        None => judged,
    };
    let explained = Explained {
        project,
        record: args.record,
        state,
        because,
        mend,
        origin: facts.table.as_ref().filter(|_| facts.is_stranger).map(|table| {
            format!(
                "it doesn't come from {table}, as the project's other records do: comparisons leave it; to remove it, \
                 delete it through the API or with cronvec.delete_record"
            )
        }),
        failed_attempts,
        stale: facts.known && !facts.deleted && facts.embedded_at.is_some() && !facts.current,
        embedded_at: facts.embedded_at,
        chunks: facts.chunks,
        space: space.map(|space| space.spec),
    };
    context.output.show(&explained, || in_words(&explained))?;
    Ok(Ended::Well)
}

/// Why a row of the project's table is no record. None: nobody here may look at it.
async fn of_the_row(app: &App, project: &str, table: &str, record: &str) -> Option<Reason> {
    let state = "no_such_record";
    Some(match app.store().row_facts(project, record).await.ok()? {
        RowFacts::Excluded { filter } => reason(
            state,
            format!("row {record} of {table} isn't to be a record: it doesn't satisfy --where {filter}"),
            Some("nothing; once the row satisfies it, the row becomes a record by itself"),
        ),
        RowFacts::Wanted => reason(
            state,
            format!("row {record} of {table} is to be a record, and no comparison has found it yet"),
            Some(&format!("the next comparison finds it; now: cronvec reconcile {table}")),
        ),
        RowFacts::Missing => reason(
            state,
            format!("{table}, which the project's records are rows of, has no row of this key"),
            Some(
                "a record's id is the row's key as text, of several columns the JSON array of their texts: [\"7\", \"2\"]",
            ),
        ),
    })
}

/// The first that applies: each one hides those behind it.
async fn judge(app: &App, facts: &RecordFacts, space: Option<&Space>, project: &str) -> Result<Reason> {
    if let Some(reason) = of_the_record(facts, space) {
        return Ok(reason);
    }
    if facts.paused {
        let mend = format!("cronvec start {project}");
        let because = match (facts.job_id, facts.job_held) {
            (Some(job), Some(false)) => {
                format!("its project is stopped; job {job} isn't held yet, the next tick holds it")
            }
            _ => "its project is stopped".to_owned(),
        };
        return Ok(reason("project_stopped", because, Some(&mend)));
    }
    if !app.settings().embedding.search_enabled {
        return Ok(reason(
            "disabled",
            "SEMANTIC_SEARCH_ENABLED is false here",
            Some("set it to true where the workers run"),
        ));
    }
    if let (Some(why), Some(job)) = (&facts.hold_reason, facts.hold_job) {
        return Ok(reason(
            "lane_held",
            format!("job {job} ended {why}, and its lane gets no new one"),
            Some(&format!("see `cronvec job {job}`, then: cronvec retry {job}")),
        ));
    }
    if let (Some(job), Some(true)) = (facts.job_id, facts.job_held) {
        return Ok(reason(
            "job_held",
            format!("job {job} of its lane is held, though its project isn't stopped"),
            Some(&format!(
                "the next tick releases it; without ticks: cronvec start {project}"
            )),
        ));
    }
    if let Some(seconds) = facts.seconds_to_wait.filter(|seconds| *seconds > 0.0) {
        let until = facts.not_before.as_deref().unwrap_or("?");
        let failed = match facts.attempts {
            Some(attempts @ 1..) => format!(" after {attempts} failed attempts"),
            _ => String::new(),
        };
        let refused = match (&facts.suspect_reason, &facts.suspect_message, facts.suspect_inputs) {
            (Some(why), Some(message), Some(1)) => format!("; when it was asked for alone: {why}: {message}"),
            (Some(why), Some(message), Some(inputs)) => {
                format!("; when it was asked for with {} others: {why}: {message}", inputs - 1)
            }
            _ => String::new(),
        };
        return Ok(reason(
            "waiting",
            format!("it waits until {until}, {seconds:.0} s more{failed}{refused}"),
            None,
        ));
    }
    if let Some(reason) = of_the_provider(app, space).await? {
        return Ok(reason);
    }
    Ok(of_the_queue(facts))
}

fn of_the_record(facts: &RecordFacts, space: Option<&Space>) -> Option<Reason> {
    let by = space.map_or_else(
        || "a provider that this program doesn't know".to_owned(),
        |space| {
            let spec = &space.spec;
            format!("{} {}, {} wide", spec.provider, spec.model, spec.dimensions)
        },
    );
    if !facts.known {
        let mend = match &facts.table {
            Some(table) => format!("the project's records are rows of {table}; compare them: cronvec reconcile"),
            None => "hand it in: cronvec ingest FILE, or cronvec.put_record".to_owned(),
        };
        return Some(reason("no_such_record", "the project has no such record", Some(&mend)));
    }
    if facts.deleted {
        return Some(reason("deleted", "it was deleted", None));
    }
    let (stored, chunks) = (facts.stored_chunks.unwrap_or(0), facts.chunks.unwrap_or(0));
    if facts.current && !facts.pending && stored < i64::from(chunks) {
        return Some(reason(
            "chunks_missing",
            format!("it counts as embedded, but {stored} of its {chunks} chunks are stored"),
            Some("cronvec backfill"),
        ));
    }
    if facts.current && !facts.pending {
        let at = facts.embedded_at.as_deref().unwrap_or("?");
        let embedded = format!("embedded {at} by {by}");
        return Some(match facts.quarantine_reason.as_deref() {
            Some(COLUMN_REFUSED) => column_refused(facts, &embedded),
            _ => reason("embedded", embedded, None),
        });
    }
    if let Some(why) = &facts.quarantine_reason {
        let (message, at) = (&facts.quarantine_message, &facts.quarantined_at);
        return Some(reason(
            "quarantined",
            format!(
                "it stands aside since {}, {why}: {}",
                at.as_deref().unwrap_or("?"),
                message.as_deref().unwrap_or("")
            ),
            Some("mend its text and hand it in again, or let it try again: cronvec replay RECORD"),
        ));
    }
    if !facts.pending {
        let mend = Some("cronvec backfill");
        return Some(match facts.embed {
            Some(false) => reason("not_asked_for", "it was stored with generateEmbeddings false", mend),
            _ => reason("not_marked", "nothing has asked for its embedding", mend),
        });
    }
    None
}

/// Search finds it; the table's own column lacks its vector.
fn column_refused(facts: &RecordFacts, embedded: &str) -> Reason {
    let because = format!(
        "{embedded}; since {} its row of {} refuses the vector, {COLUMN_REFUSED}: {}",
        facts.quarantined_at.as_deref().unwrap_or("?"),
        facts.table.as_deref().unwrap_or("the table"),
        facts.quarantine_message.as_deref().unwrap_or("")
    );
    let mend = "mend the row, or what refuses it, then: cronvec replay RECORD";
    reason(COLUMN_REFUSED, because, Some(mend))
}

async fn of_the_provider(app: &App, space: Option<&Space>) -> Result<Option<Reason>> {
    let space = space.context("its project's space is of a provider that this program doesn't know")?;
    let endpoint = match app.provider(&space.spec).await {
        Ok(provider) => provider.endpoint().to_owned(),
        Err(Unserved::NotConfigured(kind)) => {
            return Ok(Some(reason(
                "not_served",
                format!("these settings have no provider '{kind}'; a worker with the same ones leaves it alone"),
                Some("set the provider's key and address where the workers run"),
            )));
        }
        Err(error) => {
            return Ok(Some(reason(
                "not_served",
                error.to_string(),
                Some("cronvec provider test"),
            )));
        }
    };
    let pauses = app.store().pauses(Some(&[&endpoint])).await?;
    Ok(pauses.first().map(|pause| match pause.circuit {
        true => reason(
            "endpoint_paused",
            format!("{endpoint} is shut off: {}", pause.message),
            Some("mend what the message says, then: cronvec provider test"),
        ),
        false => reason(
            "endpoint_paused",
            format!(
                "{endpoint} rests for {:.0} s more: {}",
                pause.seconds_left, pause.message
            ),
            None,
        ),
    }))
}

fn of_the_queue(facts: &RecordFacts) -> Reason {
    if facts.job_status.as_deref() == Some("PROCESSING") {
        let job = facts.job_id.unwrap_or_default();
        return reason("pending", format!("job {job} works on its lane now"), None);
    }
    match facts.worker_seconds {
        None => {
            return reason(
                "nobody_ticks",
                "no worker has ever run",
                Some("call vectorization on a schedule, run `cronvec serve`, or: cronvec tick vectorization"),
            );
        }
        Some(seconds) if seconds > SECONDS_UNSEEN => {
            return reason(
                "nobody_ticks",
                format!("no worker has run for {:.0} minutes", seconds / 60.0),
                Some("see that the schedule still calls vectorization, or: cronvec tick vectorization"),
            );
        }
        Some(_) => {}
    }
    if let (Some(seconds), Some(error)) = (facts.job_seconds_to_wait.filter(|s| *s > 0.0), &facts.job_error) {
        return reason(
            "waiting",
            format!("its lane's job failed and is tried again in {seconds:.0} s: {error}"),
            None,
        );
    }
    let due = facts.seconds_due.unwrap_or(0.0).max(0.0);
    if facts.was_held {
        return reason(
            "held",
            format!("a transaction held the record when its vectors were to be stored; it has been due for {due:.0} s"),
            Some("end the transaction that holds it: see pg_stat_activity"),
        );
    }
    reason("pending", format!("it is in line, for {due:.0} s now"), None)
}

fn in_words(explained: &Explained) -> String {
    let mut lines = vec![format!(
        "{} of project {}: {}",
        explained.record, explained.project, explained.state
    )];
    lines.push(format!("  {}", explained.because));
    lines.extend(explained.origin.iter().map(|origin| format!("  {origin}")));
    for failed in &explained.failed_attempts {
        lines.push(format!(
            "  attempt {} failed {}: {}: {}",
            failed.attempt,
            failed.at.truncate_to_second(),
            failed.reason,
            failed.message
        ));
    }
    if explained.stale {
        let at = explained.embedded_at.as_deref().unwrap_or("?");
        lines.push(format!("  stale: found by its former text, embedded {at}"));
    }
    lines.extend(explained.mend.iter().map(|mend| format!("  → {mend}")));
    lines.join("\n")
}
