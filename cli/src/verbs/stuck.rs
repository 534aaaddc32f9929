//! `stuck`

use anyhow::Result;
use cronvec_store::stuck::Stuck;

use super::ready;
use crate::Context;
use crate::checks::MINUTES_WAITED;
use crate::exit::Ended;
use crate::filters::Scope;
use crate::output::{Align, Table, brief};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A job that waits is stuck after so many minutes
    #[arg(long, default_value_t = MINUTES_WAITED, value_parser = minutes)]
    minutes: f64,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let filter = args.scope.checked(&app).await?;
    let found = app.store().stuck(&filter, args.minutes).await?;
    context.output.list(&found, table)?;
    Ok(Ended::Well)
}

fn minutes(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if (0.0..1e6).contains(&number) {
        Ok(number)
    } else {
        Err("it must be at least 0".to_owned())
    }
}

fn table(stuck: &[Stuck]) -> Table {
    let columns = [
        ("job", Align::Right),
        ("type", Align::Left),
        ("project", Align::Left),
        ("minutes", Align::Right),
        ("what", Align::Left),
        ("mend", Align::Left),
    ];
    let mut table = Table::new(&columns, "nothing is stuck");
    for one in stuck {
        table.row([
            one.job_id.clone(),
            one.job_type.clone(),
            brief(&one.project, 30),
            format!("{:.1}", one.minutes),
            one.message.clone(),
            one.mend.clone(),
        ]);
    }
    table
}
