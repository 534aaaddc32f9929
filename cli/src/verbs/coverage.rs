//! `coverage`

use anyhow::{Result, bail};
use shared::store::projects::Coverage;

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

async fn of_deployment(remote: &Remote, project: Option<&str>) -> Result<Vec<Coverage>> {
    let mut lines: Vec<Coverage> = remote.get("api/admin/coverage", &[]).await?;
    if let Some(name) = project {
        lines.retain(|line| line.project == name);
        if lines.is_empty() {
            bail!("no project '{name}' that the deployment has counted and this token reaches");
        }
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
