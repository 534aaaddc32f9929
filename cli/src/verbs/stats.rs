//! `stats`

use anyhow::Result;
use serde::Serialize;
use shared::store::figures::{CAP, Hour, OfType};
use shared::store::quarantine::QuarantineFilter;

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
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(i32).range(1..=720))]
    hours: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    jobs: Vec<OfType>,
    /// Numbers that are at least so many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capped: Vec<String>,
    pending_records: i64,
    quarantined: i64,
    hours: Vec<Hour>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let filter = args.scope.checked(&app).await?;
    let store = app.store();
    let mut stats = Stats {
        jobs: store.jobs_by_type(&filter).await?,
        capped: Vec::new(),
        pending_records: store.count_pending(filter.project.as_deref()).await?,
        quarantined: store
            .count_quarantined(&QuarantineFilter {
                project: filter.project.clone(),
                ..QuarantineFilter::default()
            })
            .await?,
        hours: store.hours(&filter, args.hours).await?,
    };
    cap(&mut stats);
    context.output.show(&stats, || in_words(&stats))?;
    Ok(Ended::Well)
}

/// Names what was counted no further.
fn cap(stats: &mut Stats) {
    for of in &mut stats.jobs {
        for (name, number) in [
            ("pending", &mut of.pending),
            ("processing", &mut of.processing),
            ("completed", &mut of.completed),
            ("failed", &mut of.failed),
            ("cancelled", &mut of.cancelled),
        ] {
            if *number > CAP {
                *number = CAP;
                stats.capped.push(format!("{}.{name}", of.job_type));
            }
        }
    }
    if stats.pending_records > CAP {
        stats.pending_records = CAP;
        stats.capped.push("pendingRecords".to_owned());
    }
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
