//! `search TEXT`

use anyhow::Result;
use cronvec_store::search::Hit;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{project_or_only, project_or_only_of, ready};
use crate::Context;
use crate::exit::{Ended, usage};
use crate::output::{Align, Table, brief};
use crate::remote::Remote;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to look for; several words need no quotes
    #[arg(required = true)]
    text: Vec<String>,
    /// Where; may be left out while there is only one project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// So many records
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
    /// JSON that a record's metadata must contain
    #[arg(long, value_name = "JSON", value_parser = filter)]
    filter: Option<Value>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let text = args.text.join(" ");
    if text.trim().is_empty() {
        return Err(usage("there is nothing to look for"));
    }
    let hits = match &context.remote {
        Some(remote) => of_deployment(remote, args, &text).await?,
        None => {
            let app = ready().await?;
            let project = project_or_only(&app, args.project).await?;
            app.search(&project, &text, args.limit, args.filter.as_ref()).await?
        }
    };
    context.output.list(&hits, table)?;
    Ok(Ended::Well)
}

#[derive(Deserialize)]
struct Found {
    results: Vec<Hit>,
}

async fn of_deployment(remote: &Remote, args: Args, text: &str) -> Result<Vec<Hit>> {
    let project = project_or_only_of(remote, args.project).await?;
    let mut question = json!({"project": project, "query": text, "limit": args.limit});
    if let Some(filter) = args.filter {
        question["filter"] = filter;
    }
    let found: Found = remote.post("api/search", &[], &question).await?;
    Ok(found.results)
}

/// Hits as a person reads them.
pub(super) fn table(hits: &[Hit]) -> Table {
    let columns = [("score", Align::Right), ("record", Align::Left), ("", Align::Left)];
    let mut table = Table::new(&columns, "nothing found");
    for hit in hits {
        let stale = if hit.stale { "(its text has changed) " } else { "" };
        let text = format!("{stale}{}", brief(first_sentence(&hit.content), 90));
        table.row([format!("{:.3}", hit.score), brief(&hit.id, 40), text]);
    }
    table
}

fn first_sentence(text: &str) -> &str {
    let text = text.trim();
    let end = text.match_indices(['.', '!', '?']).map(|(at, mark)| at + mark.len());
    end.into_iter()
        .find(|end| text[*end..].starts_with(char::is_whitespace))
        .map_or(text, |end| &text[..end])
}

fn filter(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("it must be an object, such as {\"topic\":\"music\"}".to_owned()),
        Err(error) => Err(format!("it isn't JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_ends_where_a_space_follows_its_mark() {
        assert_eq!(first_sentence(" It takes 1.5 hours. Then rest."), "It takes 1.5 hours.");
        assert_eq!(first_sentence("No end"), "No end");
        assert_eq!(first_sentence("Only one."), "Only one.");
    }
}
