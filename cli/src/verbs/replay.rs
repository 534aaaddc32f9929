//! `replay`

use anyhow::Result;
use serde_json::json;

use super::{left_as_it_is, ready};
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
    context
        .output
        .show(&json!({"success": true, "replayed": ids.len()}), || match args.rate {
            Some(rate) => format!("{} records try again, {rate} a minute", count(ids.len() as u64)),
            None => format!("{} records try again", count(ids.len() as u64)),
        })?;
    Ok(Ended::Well)
}
