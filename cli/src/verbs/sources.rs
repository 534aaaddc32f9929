//! `sources`

use anyhow::Result;
use cronvec_store::sources::Source;

use super::ready;
use crate::Context;
use crate::exit::Ended;
use crate::output::{Align, Table, brief, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_args: Args, context: &Context) -> Result<Ended> {
    let sources = ready().await?.store().sources().await?;
    context.output.list(&sources, table)?;
    Ok(Ended::Well)
}

fn table(sources: &[Source]) -> Table {
    let columns = [
        ("project", Align::Left),
        ("table", Align::Left),
        ("key", Align::Left),
        ("text", Align::Left),
        ("column", Align::Left),
        ("rows", Align::Right),
        ("passes", Align::Right),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns, "no tables are attached");
    for source in sources {
        let state = source.trouble.clone().unwrap_or_else(|| match source.phase.as_str() {
            "idle" => String::new(),
            _ => "comparing".to_owned(),
        });
        table.row([
            source.project.clone(),
            source.table.clone(),
            source.key.join(", "),
            brief(&source.text, 40),
            source.embedding_column.clone().unwrap_or_default(),
            count(u64::try_from(source.rows).unwrap_or_default()),
            source.passes.to_string(),
            brief(&state, 160),
        ]);
    }
    table
}
