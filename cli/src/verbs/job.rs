//! `job ID`, `retry`, `cancel`

use anyhow::Result;
use cronvec_nouns::job::JobStatus;
use cronvec_store::StoreError;
use cronvec_store::selection::{JobDetail, JobFilter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::job_table::progress;
use super::{left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use crate::filters::Filters;
use crate::output::count;
use crate::remote::{Remote, is_refused_with};

/// Jobs that are asked for at once.
const PAGE: i64 = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    id: i64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    /// This one; else all that the options choose, FAILED ones unless --status says cancelled
    id: Option<i64>,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// This one; else all that the options choose, of those that haven't ended
    id: Option<i64>,
    #[command(flatten)]
    filters: Filters,
}

pub(crate) async fn show(args: Show, context: &Context) -> Result<Ended> {
    let job = match &context.remote {
        Some(remote) => of_deployment(remote, args.id).await?,
        None => ready().await?.store().job_detail(args.id).await?,
    };
    context.output.show(&job, || in_words(&job))?;
    Ok(Ended::Well)
}

/// What a job was handed is shown to admins alone.
async fn of_deployment(remote: &Remote, id: i64) -> Result<JobDetail> {
    let path = format!("api/admin/jobs/{id}");
    let whole: Result<JobDetail> = remote.get(&path, &[("payload", "true")]).await;
    let mut job = match whole {
        Err(error) if is_refused_with(&error, 403) => remote.get(&path, &[]).await?,
        whole => whole?,
    };
    if let Some(payload) = job.payload.as_mut().and_then(Value::as_object_mut) {
        for of_records in ["records", "lines"] {
            payload.remove(of_records);
        }
    }
    Ok(job)
}

pub(crate) async fn retry(args: Retry, context: &Context) -> Result<Ended> {
    let named = one(args.id, &args.filters)?;
    if let Some(remote) = &context.remote {
        if let Some(id) = named {
            act_on_one(remote, "retry", id).await?;
            return done(id, "is in the queue again", context);
        }
        return show_outcome(
            act_on_many(remote, "retry", &args.filters).await?,
            "jobs retried",
            context,
        );
    }
    let app = ready().await?;
    if let Some(id) = named {
        app.retry(id).await?;
        app.audit("queue", "jobs retried", &[id.to_string()], None).await;
        return done(id, "is in the queue again", context);
    }
    let filter = args.filters.checked(&app).await?;
    let status = filter.status.unwrap_or(JobStatus::Failed);
    let outcome = each(&app, &filter, &[status], async |id| app.retry(id).await).await?;
    outcome.tell(&app, "jobs retried", context).await
}

pub(crate) async fn cancel(args: Cancel, context: &Context) -> Result<Ended> {
    let named = one(args.id, &args.filters)?;
    if let Some(remote) = &context.remote {
        let question = match named {
            Some(id) => of_one(id),
            None => OF_MANY.to_owned(),
        };
        if !context.confirm(&question)? {
            return left_as_it_is(context);
        }
        if let Some(id) = named {
            act_on_one(remote, "cancel", id).await?;
            return done(id, "is cancelled", context);
        }
        return show_outcome(
            act_on_many(remote, "cancel", &args.filters).await?,
            "jobs cancelled",
            context,
        );
    }
    let app = ready().await?;
    if let Some(id) = named {
        if !context.confirm(&of_one(id))? {
            return left_as_it_is(context);
        }
        app.cancel(id).await?;
        app.audit("queue", "jobs cancelled", &[id.to_string()], None).await;
        return done(id, "is cancelled", context);
    }
    let filter = args.filters.checked(&app).await?;
    let all = [JobStatus::Pending, JobStatus::Processing];
    let statuses = filter.status.map_or(all.to_vec(), |status| vec![status]);
    if !context.confirm(OF_MANY)? {
        return left_as_it_is(context);
    }
    let outcome = each(&app, &filter, &statuses, async |id| app.cancel(id).await).await?;
    outcome.tell(&app, "jobs cancelled", context).await
}

const OF_MANY: &str = "Cancel all jobs that the options choose? What they have stored stays.";

fn of_one(id: i64) -> String {
    format!("Cancel job {id}? What it has stored stays.")
}

async fn act_on_one(remote: &Remote, act: &str, id: i64) -> Result<()> {
    let path = format!("api/admin/queue/{act}");
    let _: Value = remote.post(&path, &[("jobId", &id.to_string())], &json!({})).await?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    ids: Vec<String>,
    passed_over: usize,
    more: bool,
}

/// A call acts on so many at most: it is repeated while it moves any.
async fn act_on_many(remote: &Remote, act: &str, filters: &Filters) -> Result<(Vec<String>, usize)> {
    let mut filter = serde_json::Map::new();
    for (name, value) in filters.scope.query() {
        filter.insert(name.to_owned(), value.into());
    }
    if let Some(status) = filters.status {
        filter.insert("status".to_owned(), status.as_str().into());
    }
    let (path, body) = (format!("api/admin/jobs/{act}"), json!({"filter": filter}));
    let mut all = Vec::new();
    loop {
        let done: Done = remote.post(&path, &[], &body).await?;
        let moves = !done.ids.is_empty();
        all.extend(done.ids);
        // Each call begins with the first: what the last one passed over is all that was.
        if !done.more || !moves {
            return Ok((all, done.passed_over));
        }
    }
}

/// The one that is named; `None` when options choose.
fn one(id: Option<i64>, filters: &Filters) -> Result<Option<i64>> {
    match (id, filters.is_empty()) {
        (None, true) => Err(usage(
            "which jobs? Name one by its id, or choose by --status, --type or --project",
        )),
        (Some(_), false) => Err(usage("either one job by its id, or many by options")),
        (id, _) => Ok(id),
    }
}

/// What came of an act on many.
#[derive(Debug, Default)]
struct Outcome {
    done: Vec<String>,
    refused: Vec<(i64, String)>,
}

/// Acts on each job of these statuses. One that has moved on meanwhile, or whose lane has another job, is passed over.
async fn each(
    app: &App,
    filter: &JobFilter,
    statuses: &[JobStatus],
    act: impl AsyncFn(i64) -> Result<()>,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for status in statuses {
        let filter = JobFilter {
            status: Some(*status),
            ..filter.clone()
        };
        let mut after = 0;
        loop {
            let ids = app.store().job_ids(&filter, after, PAGE).await?;
            let Some(last) = ids.last() else { break };
            after = *last;
            for id in ids {
                match act(id).await {
                    Ok(()) => outcome.done.push(id.to_string()),
                    Err(error) => match error.downcast_ref() {
                        Some(StoreError::Conflict(why) | StoreError::Invalid(why)) => {
                            outcome.refused.push((id, why.clone()));
                        }
                        Some(taken @ StoreError::ActiveJob { .. }) => outcome.refused.push((id, taken.to_string())),
                        _ => return Err(error),
                    },
                }
            }
        }
    }
    Ok(outcome)
}

impl Outcome {
    async fn tell(self, app: &App, what: &str, context: &Context) -> Result<Ended> {
        if !self.done.is_empty() {
            app.audit("queue", what, &self.done, None).await;
        }
        for (id, why) in &self.refused {
            context.output.note(format!("job {id}: {why}"));
        }
        show_outcome((self.done, self.refused.len()), what, context)
    }
}

fn show_outcome((ids, passed_over): (Vec<String>, usize), what: &str, context: &Context) -> Result<Ended> {
    let shown = json!({"success": true, "jobIds": ids, "passedOver": passed_over});
    context.output.show(&shown, || {
        format!("{} {what}, {passed_over} passed over", count(ids.len() as u64))
    })?;
    Ok(Ended::Well)
}

fn done(id: i64, what: &str, context: &Context) -> Result<Ended> {
    context
        .output
        .show(&json!({"success": true, "jobId": id.to_string()}), || {
            format!("job {id} {what}")
        })?;
    Ok(Ended::Well)
}

fn in_words(detail: &JobDetail) -> String {
    let job = &detail.job;
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
    lines.push(format!("  worked     {} ms", count(detail.active_ms)));
    if let Some(space) = detail.space {
        lines.push(format!(
            "  space      {space}, lane {} of {}",
            detail.lane, detail.lanes
        ));
    }
    if let (Some(worker), Some(seconds)) = (&detail.worker, detail.lease_seconds_left) {
        lines.push(format!("  held by    {worker}, its lease ends in {seconds:.0} s"));
    }
    if detail.held {
        lines.push("  held       no worker claims it while its project is stopped".to_owned());
    }
    if detail.crashes > 0 {
        lines.push(format!("  crashes    {}", detail.crashes));
    }
    if let Some(reason) = &detail.holds_its_lane {
        lines.push(format!("  its lane   gets no new job, since this one is {reason}"));
    }
    if detail.rejected > 0 {
        lines.push(format!("  rejected   {} records", count(detail.rejected)));
    }
    lines.extend(progress(job).map(|progress| format!("  progress   {progress}")));
    lines.extend(detail.payload.iter().map(|payload| format!("  payload    {payload}")));
    lines.extend(detail.cursor.iter().map(|cursor| format!("  cursor     {cursor}")));
    lines.extend(job.result.iter().map(|result| format!("  result     {result}")));
    lines.join("\n")
}
