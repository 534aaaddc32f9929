//! `coverage`

use anyhow::{Result, bail};
use cronvec_store::projects::Coverage;
use serde::Deserialize;

use super::ready;
use crate::Context;
use crate::exit::Ended;
use crate::output::{Align, Table, count};
use crate::remote::Remote;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let project = args.project.as_deref();
    let lines = match &context.remote {
        Some(remote) => of_deployment(remote, project).await?,
        None => ready().await?.coverage(project).await?,
    };
    context.output.list(&lines, table)?;
    Ok(Ended::Well)
}

/// Projects on a page, unless a deployment is told another number.
const PAGE: usize = 1000;

/// A project as a deployment tells of it; without numbers while nobody has counted it there.
#[derive(Deserialize)]
struct Found {
    project: String,
    total: Option<i64>,
    embedded: Option<i64>,
    pending: Option<i64>,
    quarantined: Option<i64>,
    percent: Option<f64>,
}

impl Found {
    fn counted(&self) -> Option<Coverage> {
        Some(Coverage {
            project: self.project.clone(),
            total: self.total?,
            embedded: self.embedded?,
            pending: self.pending?,
            quarantined: self.quarantined?,
            percent: self.percent?,
        })
    }
}

/// Page by page, each asked for again until all of it is counted there.
async fn of_deployment(remote: &Remote, project: Option<&str>) -> Result<Vec<Coverage>> {
    let mut lines = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let query: Vec<(&str, &str)> = after.iter().map(|after| ("after", after.as_str())).collect();
        let mut page: Vec<Found> = remote.get("api/admin/coverage", &query).await?;
        let mut before = usize::MAX;
        let next = (page.len() >= PAGE)
            .then(|| page.last().map(|found| found.project.clone()))
            .flatten();
        loop {
            page.retain(|found| project.is_none_or(|name| found.project == name));
            let uncounted = page.iter().filter(|found| found.counted().is_none()).count();
            if uncounted == 0 {
                break;
            }
            if uncounted >= before {
                bail!("{uncounted} projects can't be counted there in time; ask again, or name one: --project NAME");
            }
            before = uncounted;
            page = remote.get("api/admin/coverage", &query).await?;
        }
        lines.extend(page.iter().filter_map(Found::counted));
        after = next;
        if after.is_none() {
            break;
        }
    }
    if let (Some(name), true) = (project, lines.is_empty()) {
        bail!("no project '{name}' that this token reaches");
    }
    Ok(lines)
}

/// Coverage as a person reads it.
pub(super) fn table(lines: &[Coverage]) -> Table {
    let columns = [
        ("project", Align::Left),
        ("total", Align::Right),
        ("embedded", Align::Right),
        ("pending", Align::Right),
        ("quarantined", Align::Right),
        ("percent", Align::Right),
    ];
    let mut table = Table::new(&columns, "no projects yet");
    for line in lines {
        table.row([
            line.project.clone(),
            count(line.total),
            count(line.embedded),
            count(line.pending),
            count(line.quarantined),
            // Cut, not rounded: 100 says that nothing is missing.
            format!("{:.1}", (line.percent * 10.0).floor() / 10.0),
        ]);
    }
    table
}
