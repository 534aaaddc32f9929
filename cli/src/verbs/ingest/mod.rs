//! `ingest FILE`

mod remote;

use std::path::PathBuf;

use anyhow::Result;
use cronvec_reading::{Fields, Rules};

use self::remote::at_deployment;
use super::{project_or_only, project_or_only_of, ready, refuse_option};
use crate::Context;
use crate::app::{self, IngestOptions};
use crate::drain::{self, Handed};
use crate::exit::{Ended, usage};
use crate::output::{Align, Output, Table, brief, count};
use crate::reading::{self, Format, Piece};
use crate::rejects::Rejects;
use crate::shapes::{Enqueued, FailedJob, IngestResult};

/// So many rejected records are told; `--json` has more and `--rejects` all of them.
const SHOWN_REJECTS: usize = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Records as NDJSON, JSON or CSV, gzipped or not; `-` reads standard input
    ///
    /// Of two records with one id the later one stays. Handing a file in again changes only what changed in it.
    file: PathBuf,
    /// Where they go; may be left out while there is only one project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// What FILE is, where neither its ending nor its first character says so
    #[arg(long)]
    format: Option<Format>,
    /// What parts the columns of a CSV file: a character, or `tab` [default: a comma]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// The field or column that is a record's id [default: id]
    #[arg(long, value_name = "FIELD")]
    id: Option<String>,
    /// The field or column that is a record's text; several, with commas or repeated, are joined by an empty line [default: content]
    #[arg(long, value_name = "FIELD")]
    text: Vec<String>,
    /// A field or column that becomes metadata; several with commas or repeated [default: all others]
    #[arg(long, value_name = "FIELD")]
    metadata: Vec<String>,
    /// Write the records that aren't taken to this file: line, id, reason and the record's own text, a line each
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
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

/// `title, body` is two fields, as for `attach`.
fn parted(texts: &[String]) -> Vec<String> {
    let names = texts.iter().flat_map(|names| names.split(','));
    names
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [b'"' | b'\n' | b'\r'] => Err("quotes and line ends have another meaning".to_owned()),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("one ASCII character, or tab".to_owned()),
    }
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let output = context.output;
    let rules = Rules {
        format: reading::format(&args.file, args.format, args.delimiter),
        fields: Fields {
            id: args.id,
            texts: parted(&args.text),
            metadata: parted(&args.metadata),
        },
        max_content_bytes: app::settings()?.max_content_bytes,
    };
    if let (Some(rejects), Ok(file)) = (&args.rejects, args.file.canonicalize())
        && rejects.canonicalize().is_ok_and(|rejects| rejects == file)
    {
        return Err(usage("--rejects names the file that is read"));
    }
    let mut pieces = reading::open(&args.file, rules)?;
    let options = |project| IngestOptions {
        project,
        priority: args.priority,
        generate_embeddings: !args.no_embeddings,
    };
    let rejects = || match &args.rejects {
        Some(path) => Rejects::in_file(path),
        None => Ok(Rejects::default()),
    };
    if let Some(remote) = &context.remote {
        refuse_option("--wait", args.wait)?;
        let options = options(project_or_only_of(remote, args.project).await?);
        return at_deployment(remote, &options, &mut pieces, rejects()?, output).await;
    }
    let app = ready().await?;
    let options = options(project_or_only(&app, args.project).await?);
    let mut rejects = rejects()?;
    let hand = async |piece: &Piece| app.enqueue(&options, piece).await;
    let (handed, read) = drain::enqueue(hand, &mut pieces, &mut rejects).await;
    rejects.finish()?;
    if handed.is_empty() {
        // Nothing is in the queue: the error is all there is to tell.
        read?;
        return nothing_taken(&rejects, args.wait, output);
    }
    if !args.wait {
        let jobs: Vec<Enqueued> = handed.iter().map(enqueued).collect();
        let ended = only_read(&jobs, &rejects, false, output)?;
        output.note(
            "what the jobs reject is known when they have run: see `cronvec job ID`, or hand the file in with --wait",
        );
        return read.map(|()| ended);
    }
    let mut result = drain::ingest(&app, &handed, &options.project, &mut rejects, context).await?;
    rejects.finish()?;
    let embedded = match options.generate_embeddings {
        true => drain::embed(&app, &options.project, context).await.map(Some),
        false => Ok(None),
    };
    match embedded {
        Ok(embedded) => result.failed.extend(embedded.map(|ran| ran.failed).unwrap_or_default()),
        Err(error) if context.interrupt.is_raised() => return Err(error),
        // What is stored is told before what isn't embedded.
        Err(error) => {
            show(&result, output)?;
            return Err(error);
        }
    }
    show(&result, output)?;
    read?;
    Ok(if rejects.count() == 0 && result.failed.is_empty() {
        Ended::Well
    } else {
        Ended::Unhealthy
    })
}

/// Of a file without records, or with none that could be stored.
fn nothing_taken(rejects: &Rejects, wants_result: bool, output: Output) -> Result<Ended> {
    let ended = only_read(&[], rejects, wants_result, output)?;
    match ended {
        Ended::Well => output.note("there are no records in it"),
        _ => output.note(rejects.mend()),
    }
    Ok(ended)
}

/// Nothing has run: the jobs, and what reading alone found wrong.
fn only_read(jobs: &[Enqueued], rejects: &Rejects, wants_result: bool, output: Output) -> Result<Ended> {
    let mut found = IngestResult::default();
    rejects.add_to(&mut found);
    let end = if rejects.count() == 0 {
        Ended::Well
    } else {
        Ended::Unhealthy
    };
    if wants_result {
        show(&found, output)?;
        return Ok(end);
    }
    if end == Ended::Well || !jobs.is_empty() {
        output.list(jobs, table)?;
    }
    if end == Ended::Well {
        return Ok(end);
    }
    output.note(format!(
        "{} rejected while reading\n{}",
        count(rejects.count()),
        told(&found).join("\n")
    ));
    Ok(end)
}

fn enqueued(handed: &Handed) -> Enqueued {
    Enqueued {
        job_id: handed.job_id.to_string(),
        records: handed.records,
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
            count(result.rejected_count.unwrap_or(0))
        )];
        lines.extend(told(result));
        lines.extend(result.failed.iter().map(ended));
        lines.join("\n")
    })
}

fn ended(job: &FailedJob) -> String {
    let FailedJob {
        job_id,
        status,
        error,
        lines,
        left,
    } = job;
    let for_records = match (lines, left) {
        (Some(lines), _) => format!("lines {} to {} may not be stored", lines.first_line, lines.last_line),
        (None, left) => format!("{} records aren't embedded", count(left.unwrap_or(0))),
    };
    format!("job {job_id} ended {status}, {for_records}: {error}; again with: cronvec retry {job_id}")
}

/// The first rejected records; of more than these also how many for which reason.
fn told(result: &IngestResult) -> Vec<String> {
    let mut lines: Vec<String> = result
        .rejected
        .iter()
        .take(SHOWN_REJECTS)
        .map(|rejected| {
            let id = rejected
                .id
                .as_deref()
                .map_or_else(String::new, |id| format!(" ({})", brief(id, 60)));
            format!("  line {}{id}: {}", rejected.line, rejected.reason)
        })
        .collect();
    let more = result.rejected_count.unwrap_or(0).saturating_sub(SHOWN_REJECTS as u64);
    if more > 0 {
        lines.push(format!(
            "  and {} more; --rejects FILE keeps all. By reason:",
            count(more)
        ));
        let reasons = result.rejected_by_reason.iter();
        lines.extend(reasons.map(|(reason, records)| format!("  {} × {reason}", count(*records))));
    }
    lines
}
