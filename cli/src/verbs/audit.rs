//! `audit`

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use cronvec_store::audit::{AuditEntry, AuditFilter, CATEGORIES, LEVELS};
use serde::Deserialize;

use super::ready;
use crate::Context;
use crate::exit::Ended;
use crate::output::{Align, Table, brief};
use crate::remote::Remote;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// So many entries
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// Only of this kind
    #[arg(long, value_parser = PossibleValuesParser::new(CATEGORIES))]
    category: Option<String>,
    /// Only of this level: acts are info, failed attempts at records error
    #[arg(long, value_parser = PossibleValuesParser::new(LEVELS))]
    level: Option<String>,
    /// Only of this operation, such as a backfill's
    #[arg(long, value_name = "ID")]
    operation: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let filter = AuditFilter {
        level: args.level,
        category: args.category,
        operation: args.operation,
    };
    let entries = match &context.remote {
        Some(remote) => of_deployment(remote, &filter, args.limit).await?,
        None => ready().await?.store().audit_entries(&filter, args.limit).await?,
    };
    context.output.list(&entries, table)?;
    Ok(Ended::Well)
}

/// A page has at most so many.
const PAGE: i64 = 500;

#[derive(Deserialize)]
struct Page {
    entries: Vec<AuditEntry>,
    next: Option<String>,
}

/// A deployment gives all entries: they are chosen here.
async fn of_deployment(remote: &Remote, filter: &AuditFilter, limit: i64) -> Result<Vec<AuditEntry>> {
    let is = |wanted: &Option<String>, value: Option<&str>| wanted.is_none() || wanted.as_deref() == value;
    let is_wanted = |entry: &AuditEntry| {
        is(&filter.level, Some(&entry.level))
            && is(&filter.category, Some(&entry.category))
            && is(&filter.operation, entry.operation_id.as_deref())
    };
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let page_size = PAGE.to_string();
    let mut found: Vec<AuditEntry> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", page_size.as_str())];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page: Page = remote.get("api/admin/audit", &query).await?;
        found.extend(page.entries.into_iter().filter(is_wanted));
        after = page.next;
        if after.is_none() || found.len() >= wanted {
            found.truncate(wanted);
            return Ok(found);
        }
    }
}

fn table(entries: &[AuditEntry]) -> Table {
    let columns = [
        ("when", Align::Left),
        ("who", Align::Left),
        ("kind", Align::Left),
        ("what", Align::Left),
        ("ids", Align::Left),
    ];
    let mut table = Table::new(&columns, "no such entry");
    for entry in entries {
        let ids = entry.metadata["ids"].as_array().cloned().unwrap_or_default();
        let ids: Vec<&str> = ids.iter().filter_map(|id| id.as_str()).collect();
        table.row([
            entry.timestamp.truncate_to_second().to_string(),
            entry.metadata["who"].as_str().unwrap_or_default().to_owned(),
            entry.category.clone(),
            entry.message.clone(),
            brief(&ids.join(", "), 40),
        ]);
    }
    table
}
