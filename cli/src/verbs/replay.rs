//! `replay`

use anyhow::Result;
use serde_json::json;

use super::{left_as_it_is, ready, refuse_option};
use crate::Context;
use crate::exit::{Ended, usage};
use crate::filters::{Aside, aside_in_words};
use crate::output::count;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    aside: Aside,
    /// So many a minute; else all at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// So many at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    if args.aside.is_empty() && args.limit.is_none() && !context.yes {
        return Err(usage(
            "which records? Name them, or --reason, --project or --limit; all of them with --yes",
        ));
    }
    if let Some(remote) = &context.remote {
        refuse_option("--rate", args.rate.is_some())?;
        refuse_option("--limit", args.limit.is_some())?;
        let question = "Let the records that the options choose try again?";
        if !context.confirm(question)? {
            return left_as_it_is(context);
        }
        let replayed = args.aside.act_at(remote, "replay").await?;
        return show(replayed, None, context);
    }
    let app = ready().await?;
    let filter = args.aside.checked(&app).await?;
    let there = app.store().count_quarantined(&filter).await?;
    let wanted = there.min(args.limit.unwrap_or(i64::MAX));
    let question = format!("Let {} try again?", aside_in_words(wanted, there));
    if wanted > 0 && !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    let per_second = args.rate.map(|rate| f64::from(rate) / 60.0);
    let mut ids: Vec<String> = Vec::new();
    loop {
        let before = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let left = args.limit.unwrap_or(i64::MAX) - before;
        if left <= 0 {
            break;
        }
        let page = app.store().replay_page(&filter, per_second, before, left).await?;
        if page.is_empty() {
            break;
        }
        ids.extend(page);
    }
    if !ids.is_empty() {
        app.audit("quarantine", "records try again", &ids, None).await;
    }
    show(ids.len(), args.rate, context)
}

fn show(replayed: usize, rate: Option<u32>, context: &Context) -> Result<Ended> {
    context
        .output
        .show(&json!({"success": true, "replayed": replayed}), || match rate {
            Some(rate) => format!("{} records try again, {rate} a minute", count(replayed as u64)),
            None => format!("{} records try again", count(replayed as u64)),
        })?;
    Ok(Ended::Well)
}
