//! `stats`

use anyhow::Result;
use cronvec_store::stats::{MOST_HOURS, Stats};

use super::ready;
use crate::Context;
use crate::exit::Ended;
use crate::filters::Scope;
use crate::output::{Align, Table, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// So many hours, hour by hour
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(i32).range(1..=i64::from(MOST_HOURS)))]
    hours: i32,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let stats = match &context.remote {
        Some(remote) => {
            let hours = args.hours.to_string();
            let mut query = args.scope.query();
            query.push(("hours", &hours));
            remote.get("api/admin/figures", &query).await?
        }
        None => {
            let app = ready().await?;
            let filter = args.scope.checked(&app).await?;
            app.store().stats(&filter, args.hours).await?
        }
    };
    context.output.show(&stats, || in_words(&stats))?;
    Ok(Ended::Well)
}

fn in_words(stats: &Stats) -> String {
    let columns = [
        ("jobs", Align::Left),
        ("pending", Align::Right),
        ("processing", Align::Right),
        ("completed", Align::Right),
        ("failed", Align::Right),
        ("cancelled", Align::Right),
        ("average ms", Align::Right),
    ];
    let mut table = Table::new(&columns, "no jobs");
    for of in &stats.jobs {
        table.row([
            of.job_type.clone(),
            count(of.pending),
            count(of.processing),
            count(of.completed),
            count(of.failed),
            count(of.cancelled),
            of.average_active_ms
                .map_or_else(String::new, |average| format!("{average:.0}")),
        ]);
    }
    let columns = [
        ("hour", Align::Left),
        ("created", Align::Right),
        ("completed", Align::Right),
        ("failed", Align::Right),
    ];
    let mut hours = Table::new(&columns, "nothing happened in these hours");
    for hour in &stats.hours {
        hours.row([
            hour.hour.clone(),
            count(hour.created),
            count(hour.completed),
            count(hour.failed),
        ]);
    }
    let mut text = format!(
        "{}\n{} records pending, {} in quarantine\n\n{}",
        table.render(),
        count(stats.pending_records),
        count(stats.quarantined),
        hours.render()
    );
    if !stats.capped.is_empty() {
        text.push_str(&format!("\nat least so many: {}\n", stats.capped.join(", ")));
    }
    text
}
