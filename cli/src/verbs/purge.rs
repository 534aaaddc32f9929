//! `purge`

use anyhow::Result;
use cronvec_store::quarantine::QuarantineFilter;
use serde_json::json;

use super::{left_as_it_is, ready, refuse_option};
use crate::Context;
use crate::exit::Ended;
use crate::filters::{Aside, aside_in_words};
use crate::output::count;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    aside: Aside,
    /// Only those whose last attempt is at least so many days ago
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    if let Some(remote) = &context.remote {
        refuse_option("--older-than", args.older_than.is_some())?;
        let question = "Forget why the records that the options choose stand aside? They stay unembedded until their \
            text changes or a backfill takes them.";
        if !context.confirm(question)? {
            return left_as_it_is(context);
        }
        let purged = args.aside.act_at(remote, "purge").await?;
        return show(purged, context);
    }
    let app = ready().await?;
    let filter = QuarantineFilter {
        older_than_days: args.older_than.map(f64::from),
        ..args.aside.checked(&app).await?
    };
    let there = app.store().count_quarantined(&filter).await?;
    let question = format!(
        "Forget why {} stand aside? They stay unembedded until their text changes or a backfill takes them.",
        aside_in_words(there, there)
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
    show(ids.len(), context)
}

fn show(purged: usize, context: &Context) -> Result<Ended> {
    context.output.show(&json!({"success": true, "purged": purged}), || {
        format!("{} records forgotten", count(purged as u64))
    })?;
    Ok(Ended::Well)
}
