//! `config check`

use anyhow::Result;
use serde::Serialize;

use crate::Context;
use crate::app;
use crate::exit::Ended;
use crate::output::{Align, Table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Read the settings, say what they come to, report every problem
    Check,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Setting {
    name: &'static str,
    value: String,
}

pub(crate) async fn run(action: Action, context: &Context) -> Result<Ended> {
    let Action::Check = action;
    let settings = app::settings()?;
    let rows: Vec<Setting> = settings
        .describe()
        .into_iter()
        .map(|(name, value)| Setting { name, value })
        .collect();
    context.output.list(&rows, |rows| {
        let mut table = Table::new(&[("setting", Align::Left), ("value", Align::Left)], "");
        for row in rows {
            table.row([row.name.to_owned(), row.value.clone()]);
        }
        table
    })?;
    Ok(Ended::Well)
}
