//! `demo`: the whole way of a record, on this machine.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use cronvec_store::migrate;

use super::search;
use crate::Context;
use crate::app::{App, IngestOptions, LocalDatabase};
use crate::drain;
use crate::exit::Ended;
use crate::output::count;
use crate::reading::{self, Piece};
use crate::rejects::Rejects;
use crate::sample;

const PROJECT: &str = "demo";
/// Hits that each search shows.
const SHOWN: i32 = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End after the sample searches instead of asking for more
    #[arg(long)]
    exit: bool,
    /// Keep the sample project of an earlier run instead of handing it in again
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let Some(place) = open(context).await? else {
        context.output.note("left as it is");
        return Ok(Ended::Unhealthy);
    };
    let app = &place.app;
    app.migrate_up().await?;
    let is_new = app.create_project(PROJECT).await?;
    if is_new || !args.keep {
        store(app, context).await?;
    }
    embed(app, context).await?;
    for query in sample::queries() {
        find(app, query, context).await?;
    }
    if !args.exit && !context.output.json && io::stdin().is_terminal() {
        converse(app, context).await?;
    }
    context.output.say(
        "Next: hand in a file of your own with `cronvec ingest FILE`, with DATABASE_URL set to a database of yours.\n\
         `cronvec --help` lists what else there is, docs/ARCHITECTURE.md says how it works.",
    )?;
    Ok(Ended::Well)
}

/// Where the demo runs.
struct Place {
    // Dropped first: connections are closed before their server goes.
    app: App,
    /// Held until the end: the server stops when nobody uses it.
    _local: Option<LocalDatabase>,
}

/// The settings' database if they name one and the person agrees, else one on this machine.
async fn open(context: &Context) -> Result<Option<Place>> {
    if std::env::var_os("DATABASE_URL").is_some_and(|url| !url.is_empty()) {
        let question = "DATABASE_URL is set. Write the schema cronvec and a project 'demo' into that database?";
        return Ok(if context.confirm(question)? {
            Some(Place {
                app: App::open().await?,
                _local: None,
            })
        } else {
            None
        });
    }
    let output = context.output;
    let started = tokio::task::spawn_blocking(move || {
        // Named by the schema: programs of different ones on this machine never meet.
        LocalDatabase::start(&format!("demo_{}", migrate::fingerprint()), &|step| output.note(step))
    });
    let local = started.await.context("the database's set-up broke off")??;
    let app = App::open_at(&local.url()).await?;
    Ok(Some(Place {
        app,
        _local: Some(local),
    }))
}

async fn store(app: &App, context: &Context) -> Result<()> {
    let options = IngestOptions {
        project: PROJECT.to_owned(),
        priority: 0,
        generate_embeddings: true,
    };
    let mut pieces = reading::of_text("the sample", sample::records(), app.max_content_bytes());
    let mut rejects = Rejects::default();
    let hand = async |piece: &Piece| app.enqueue(&options, piece).await;
    let (handed, ended) = drain::enqueue(hand, &mut pieces, &mut rejects).await;
    ended?;
    let result = drain::ingest(app, &handed, PROJECT, &mut rejects, context).await?;
    if let Some(failed) = result.failed.first() {
        bail!("job {} ended {}: {}", failed.job_id, failed.status, failed.error);
    }
    context.output.show(
        &json!({"step": "ingested", "saved": result.saved_count, "skipped": result.skipped_count}),
        || {
            format!(
                "stored {} records, {} were there already",
                count(result.saved_count),
                count(result.skipped_count)
            )
        },
    )
}

async fn embed(app: &App, context: &Context) -> Result<()> {
    let embedded = drain::embed(app, PROJECT, context).await?;
    if let Some(failed) = embedded.failed.first() {
        bail!("job {} ended {}: {}", failed.job_id, failed.status, failed.error);
    }
    let coverage = drain::coverage(app, PROJECT).await?;
    let seconds = embedded.elapsed.as_secs_f64();
    let speed = embedded.per_second();
    let step = json!({
        "step": "embedded",
        "records": embedded.records,
        "seconds": seconds,
        "perSecond": speed,
        "coverage": coverage,
    });
    context.output.show(&step, || {
        let covered = super::coverage::table(std::slice::from_ref(&coverage)).render();
        format!(
            "embedded {} records in {seconds:.1} s, {speed:.0} a second\n\n{covered}",
            count(embedded.records)
        )
    })
}

async fn find(app: &App, query: &str, context: &Context) -> Result<()> {
    let hits = app.search(PROJECT, query, SHOWN, None).await?;
    let step = json!({"step": "searched", "query": query, "hits": hits});
    context
        .output
        .show(&step, || format!("\n? {query}\n{}", search::table(&hits).render()))
}

/// Takes searches from the keyboard until it is closed.
async fn converse(app: &App, context: &Context) -> Result<()> {
    context
        .output
        .say("\nSearch for something of your own; an empty line or Ctrl-D ends.")?;
    loop {
        let line = tokio::task::spawn_blocking(ask)
            .await
            .context("the keyboard can't be read")??;
        match line.trim() {
            "" => return Ok(()),
            query => find(app, query, context).await?,
        }
    }
}

fn ask() -> Result<String> {
    let mut line = String::new();
    print!("? ");
    io::stdout().flush().context("cannot ask")?;
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot read what was typed")?;
    Ok(line)
}
