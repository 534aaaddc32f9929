//! `purge`

use anyhow::Result;
use serde_json::json;
use shared::store::quarantine::{COUNTED, QuarantineFilter};

use super::{left_as_it_is, ready};
use crate::Context;
use crate::exit::Ended;
use crate::output::count;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// These records; else all that the options choose
    records: Vec<String>,
    /// Only those that stand aside for this reason
    #[arg(long)]
    reason: Option<String>,
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only those whose last attempt is at least so many days ago
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    if let Some(project) = &args.project {
        app.store().project(project).await?;
    }
    let filter = QuarantineFilter {
        project: args.project,
        reason: args.reason,
        records: (!args.records.is_empty()).then_some(args.records),
        older_than_days: args.older_than.map(f64::from),
    };
    let there = app.store().count_quarantined(&filter).await?;
    let more = if there >= COUNTED { " or more" } else { "" };
    let question = format!(
        "Forget why {}{more} records stand aside? They stay unembedded until their text changes or a backfill takes them.",
        count(there)
    );
    if there > 0 && !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    let mut ids: Vec<String> = Vec::new();
    loop {
        let page = app.store().purge_page(&filter).await?;
        if page.is_empty() {
            break;
        }
        ids.extend(page);
    }
    if !ids.is_empty() {
        app.audit("quarantine", "records forgotten", &ids, None).await;
    }
    context
        .output
        .show(&json!({"success": true, "purged": ids.len()}), || {
            format!("{} records forgotten", count(ids.len() as u64))
        })?;
    Ok(Ended::Well)
}
