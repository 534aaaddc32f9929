//! `reconcile`

use std::time::Duration;

use anyhow::{Result, bail};
use cronvec_store::sources::{Slice, Source, TakeOver};
use serde::Serialize;

use super::{as_usage, left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::exit::Ended;
use crate::output::count;

/// Somebody holds what we need: asked again so often, and after so long.
const PATIENCE: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A table or its project; all of them if left out
    table: Option<String>,
    /// Records whose row is gone may be more than a tenth of all
    #[arg(long)]
    allow_deletes: bool,
    /// Also delete records that don't come from the table, unless they have a row; asks first
    #[arg(long, requires = "table")]
    take_over: bool,
}

/// A source after a pass.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    pub source: Source,
    /// Records that this command wrote.
    pub written: u64,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let sources = match &args.table {
        Some(named) => vec![app.store().source(named).await.map_err(as_usage)?],
        None => app.store().sources().await?,
    };
    if sources.is_empty() {
        context
            .output
            .note("no tables are attached; attach one with: cronvec attach TABLE --text COLUMNS");
    }
    let mut ended = Ended::Well;
    if args.take_over && !take_over(&app, &sources, context).await? {
        return left_as_it_is(context);
    }
    for source in sources {
        let allow_deletes = args.allow_deletes || context.yes;
        let compared = compare(&app, &source, allow_deletes, context).await;
        audit(&app, &source, allow_deletes, compared.as_ref().ok()).await;
        let told = compared?;
        if let Some(trouble) = &told.source.trouble {
            context.output.note(format!("{}: {trouble}", told.source.table));
            ended = Ended::Unhealthy;
        }
        context.output.show(&told, || {
            format!(
                "{}: {} rows, {} records brought in line",
                told.source.table,
                count(u64::try_from(told.source.rows).unwrap_or_default()),
                count(told.written)
            )
        })?;
    }
    Ok(ended)
}

/// Counts, asks, and lets the next pass do it. False: the person said no.
async fn take_over(app: &App, sources: &[Source], context: &Context) -> Result<bool> {
    for source in sources {
        let found = app.store().preview_take_over_of(source).await?;
        if found.is_empty() {
            continue;
        }
        let question = format!(
            "Compare {} with its records? {}",
            source.table,
            take_over_in_words(&found)
        );
        if !context.confirm(&question)? {
            return Ok(false);
        }
        // A pass that is under way may be past them.
        if source.phase != "idle" {
            to_the_end(app, source, context).await?;
        }
        app.store().take_over(source.id, found.before).await?;
    }
    Ok(true)
}

/// A whole pass. What went on before this command isn't all of it: that comes to its end first.
async fn compare(app: &App, source: &Source, allow_deletes: bool, context: &Context) -> Result<Told> {
    let mut written = 0;
    if source.phase != "idle" {
        app.store().begin_pass(source.id, false).await?;
        written += to_the_end(app, source, context).await?.written;
    }
    // Who compares by hand has seen to what rows refused their vectors for.
    app.store().forget_refusals(&source.project).await?;
    app.store().begin_pass(source.id, allow_deletes).await?;
    let mut told = to_the_end(app, source, context).await?;
    told.written += written;
    Ok(told)
}

/// Also of one that broke off: what it had done by then is done.
async fn audit(app: &App, source: &Source, allow_deletes: bool, told: Option<&Told>) {
    let came_to = match told {
        Some(told) => format!("{} written, {} of them deleted", told.written, told.source.deleted),
        None => "broke off".to_owned(),
    };
    let allowed = if allow_deletes { ", any number may go" } else { "" };
    let said = format!(
        "records of project {} compared with their table{allowed}: {came_to}",
        source.project
    );
    app.audit("source", &said, std::slice::from_ref(&source.table), None)
        .await;
}

/// Slice by slice to the pass's end.
pub(super) async fn to_the_end(app: &App, source: &Source, context: &Context) -> Result<Told> {
    let mut written = 0;
    let mut waits = 0;
    while let Some(more) = app.store().take_note(source.id, app.max_content_bytes()).await? {
        written += more;
    }
    loop {
        let slice = context
            .interrupt
            .or_end(app.store().reconcile_slice(source.id, app.max_content_bytes()), || {})
            .await?;
        match slice {
            Ok(slice) => {
                written += slice.written();
                match slice {
                    Slice::Through { .. } => break,
                    Slice::More { .. } => waits = 0,
                    Slice::Busy => waits += 1,
                }
            }
            Err(error) if error.is_lock_timeout() => waits += 1,
            Err(error) => {
                return Err(
                    anyhow::Error::from(error).context(format!("{} can't be compared with its records", source.table))
                );
            }
        }
        if waits > PATIENCE {
            bail!("{} is held by somebody; ticks go on with it", source.table);
        }
        if waits > 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    let source = app.store().source(&source.project).await?;
    Ok(Told { source, written })
}

/// What becomes of records that don't come from the table.
pub(super) fn take_over_in_words(found: &TakeOver) -> String {
    let mut said = format!(
        "Of the records that don't come from the table {} have a row and get its text, {} have none and are deleted.",
        count(u64::try_from(found.with_row).unwrap_or_default()),
        count(u64::try_from(found.without_row).unwrap_or_default())
    );
    if found.jobs > 0 {
        said += &format!(
            " {} unfinished INGEST_DATA jobs will fail; their payload is kept.",
            count(u64::try_from(found.jobs).unwrap_or_default())
        );
    }
    said
}
