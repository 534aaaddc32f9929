//! `ingest FILE`

use std::path::PathBuf;

use anyhow::Result;

use super::{project_or_only, ready};
use crate::Context;
use crate::app::IngestOptions;
use crate::drain::{self, Handed};
use crate::exit::Ended;
use crate::output::{Align, Output, Table, brief, count};
use crate::reading::{self, Fields, Format};
use crate::shapes::{Enqueued, IngestResult};

/// So many rejected records are told; `--json` has all that the job's result keeps.
const SHOWN_REJECTS: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Records as NDJSON, JSON or CSV; `-` reads standard input
    file: PathBuf,
    /// Where they go; may be left out while there is only one project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// What FILE is, where neither its ending nor its first character says so
    #[arg(long)]
    format: Option<Format>,
    /// The field or column that is a record's id [default: id]
    #[arg(long, value_name = "FIELD")]
    id: Option<String>,
    /// The field or column that is a record's text [default: content]
    #[arg(long, value_name = "FIELD")]
    text: Option<String>,
    /// Higher ones go first: low is -10, high is 10
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Store the records without embedding them
    #[arg(long)]
    no_embeddings: bool,
    /// Run the workers here until all of it is stored and embedded
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let output = context.output;
    let fields = Fields {
        id: args.id,
        text: args.text,
    };
    let mut pieces = reading::open(&args.file, args.format, fields)?;
    let app = ready().await?;
    let project = project_or_only(&app, args.project).await?;
    let options = IngestOptions {
        project,
        priority: args.priority,
        generate_embeddings: !args.no_embeddings,
    };
    let handed = drain::enqueue(&app, &options, &mut pieces).await?;
    if handed.is_empty() {
        output.note("there are no records in it");
    }
    if !args.wait {
        let jobs: Vec<Enqueued> = handed.iter().map(enqueued).collect();
        output.list(&jobs, table)?;
        return Ok(Ended::Well);
    }
    let result = drain::ingest(&app, &handed, &options.project, context).await?;
    if options.generate_embeddings {
        drain::embed(&app, &options.project, context).await?;
    }
    show(&result, output)?;
    Ok(if result.rejected.is_empty() {
        Ended::Well
    } else {
        Ended::Unhealthy
    })
}

fn enqueued(handed: &Handed) -> Enqueued {
    Enqueued {
        job_id: handed.job_id.to_string(),
        records: handed.lines.len() as u64,
    }
}

fn table(jobs: &[Enqueued]) -> Table {
    let mut table = Table::new(&[("job", Align::Right), ("records", Align::Right)], "no jobs");
    for job in jobs {
        table.row([job.job_id.clone(), count(job.records)]);
    }
    table
}

fn show(result: &IngestResult, output: Output) -> Result<()> {
    output.show(result, || {
        let mut lines = vec![format!(
            "{} saved, {} skipped, {} rejected",
            count(result.saved_count),
            count(result.skipped_count),
            result.rejected.len()
        )];
        lines.extend(result.rejected.iter().take(SHOWN_REJECTS).map(|rejected| {
            let id = rejected
                .id
                .as_deref()
                .map_or_else(String::new, |id| format!(" ({})", brief(id, 60)));
            format!("  line {}{id}: {}", rejected.line, rejected.reason)
        }));
        if result.rejected.len() > SHOWN_REJECTS {
            lines.push(format!(
                "  and {} more: see --json",
                result.rejected.len() - SHOWN_REJECTS
            ));
        }
        lines.join("\n")
    })
}
