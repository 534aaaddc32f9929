//! `job ID`, `retry ID`, `cancel ID`

use anyhow::Result;
use serde_json::json;
use shared::store::jobs::JobView;

use super::ready;
use super::status::progress;
use crate::Context;
use crate::exit::Ended;

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    id: i64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    id: i64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    id: i64,
}

pub(crate) async fn show(args: Show, context: &Context) -> Result<Ended> {
    let job = ready().await?.job(args.id).await?;
    context.output.show(&job, || in_words(&job))?;
    Ok(Ended::Well)
}

pub(crate) async fn retry(args: Retry, context: &Context) -> Result<Ended> {
    ready().await?.retry(args.id).await?;
    done(args.id, "is in the queue again", context)
}

pub(crate) async fn cancel(args: Cancel, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    if !context.confirm(&format!("Cancel job {}? What it has stored stays.", args.id))? {
        context.output.note("left as it is");
        return Ok(Ended::Unhealthy);
    }
    app.cancel(args.id).await?;
    done(args.id, "is cancelled", context)
}

fn done(id: i64, what: &str, context: &Context) -> Result<Ended> {
    context
        .output
        .show(&json!({"success": true, "jobId": id.to_string()}), || {
            format!("job {id} {what}")
        })?;
    Ok(Ended::Well)
}

fn in_words(job: &JobView) -> String {
    let mut lines = vec![
        format!("job {}: {} of project {}", job.id, job.job_type, job.project),
        format!("  status     {}", job.status),
        format!("  attempts   {} of {}", job.attempts, job.max_attempts),
        format!("  priority   {}", job.priority),
        format!("  created    {}", job.created_at),
        format!("  scheduled  {}", job.scheduled_for),
    ];
    lines.extend(job.started_at.iter().map(|time| format!("  started    {time}")));
    lines.extend(job.completed_at.iter().map(|time| format!("  ended      {time}")));
    lines.extend(progress(job).map(|progress| format!("  progress   {progress}")));
    lines.extend(job.result.iter().map(|result| format!("  result     {result}")));
    lines.join("\n")
}
