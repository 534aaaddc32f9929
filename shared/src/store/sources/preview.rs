//! Owns what attaching a table would send: how many rows, how much text. Refuses to keep anything of the look.

use rand::Rng;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::attach::{self, NewSource};
use super::compile::Plan;
use super::{Source, origins};
use crate::space::SpaceSpec;

/// Rows whose texts are looked at.
const SAMPLED: i64 = 200;
/// Of a table that has more blocks only about so many are looked at for these.
const BLOCKS: f64 = 200.0;
/// Counting takes no longer: what a table says of itself will do.
const SETTINGS: &str =
    "SET LOCAL row_security = off; SET LOCAL lock_timeout = '900ms'; SET LOCAL statement_timeout = '10s'";

/// What a table's rows would send.
#[derive(Debug, Clone)]
pub struct Preview {
    pub table: String,
    /// Rows to embed.
    pub rows: i64,
    /// They were counted, and not estimated.
    pub is_exact: bool,
    /// Some of their texts, each cut short.
    pub sample: Vec<String>,
    /// Bytes of all texts, by the sample; none where it couldn't be had.
    pub bytes: Option<f64>,
}

impl Store {
    /// Looks at the table with the expressions as they are said, of one that is attached or is to be.
    pub async fn preview_attach(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
        source: Option<&Source>,
    ) -> Result<Preview, StoreError> {
        let table = self.find_table(new.table).await?;
        let plan = self.plan(new, project, space, &table).await?;
        let mut client = self.client().await?;
        // It is dropped, and so rolled back.
        let mut transaction = self.begin(&mut client, SETTINGS).await?;
        if source.is_none() {
            origins::refuse_second(&transaction, project.id).await?;
            let former = origins::former(&transaction, project.id, &table.name).await?;
            origins::refuse_strangers(&transaction, new, project, &table, former).await?;
        }
        let plan = Plan {
            // No source's, and hardly that of another who looks at this moment: functions are named by it.
            id: rand::rng().random_range(2_000_000_000..=i32::MAX),
            ..plan
        };
        attach::make_expressions(&transaction, &plan).await?;
        let is_adopted = new.adopt.is_some();
        let counted = count(&mut transaction, &plan, is_adopted).await;
        let sizes = sizes(&transaction, &plan).await?;
        let (rows, is_exact) = match counted {
            Some(rows) => (rows, true),
            None => (sizes.rows, false),
        };
        let sampled = sample(&mut transaction, &plan, is_adopted, sizes.blocks).await;
        let bytes = sampled.as_ref().and_then(|sampled| mean(sampled));
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        Ok(Preview {
            table: table.name.clone(),
            rows,
            is_exact,
            bytes: bytes.map(|bytes| bytes * rows as f64),
            sample: sampled.unwrap_or_default().into_iter().map(|(text, _)| text).collect(),
        })
    }
}

/// What a table says of its size.
struct Sizes {
    rows: i64,
    blocks: f64,
}

async fn sizes(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<Sizes, StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint,
                 coalesce(sum(pg_relation_size(c.oid)), 0)::float8 / current_setting('block_size')::float8
             FROM (SELECT $1 UNION SELECT relid FROM pg_partition_tree($1)) AS t (oid)
             JOIN pg_class c ON c.oid = t.oid AND c.relkind = 'r'",
            &[(&plan.table.oid, Type::OID)],
        )
        .await?;
    let row = rows.first().ok_or_else(super::super::no_row)?;
    Ok(Sizes {
        rows: row.get(0),
        blocks: row.get(1),
    })
}

/// Which rows of `t` would be sent.
fn condition(plan: &Plan<'_>, is_adopted: bool) -> String {
    let passes = plan
        .filter
        .as_ref()
        .map_or("true".to_owned(), |filter| filter.of(plan.id, "t"));
    match plan.embedding_column.as_ref().filter(|_| is_adopted) {
        Some(column) => format!("{passes} AND t.{} IS NULL", column.quoted),
        None => passes,
    }
}

/// None: it took too long, or an expression raises for a row.
async fn count(transaction: &mut Transaction<'_>, plan: &Plan<'_>, is_adopted: bool) -> Option<i64> {
    let statement = format!(
        "SELECT count(*) FROM {} AS t WHERE {}",
        plan.table.name,
        condition(plan, is_adopted)
    );
    let savepoint = transaction.transaction().await.ok()?;
    let rows = savepoint.query_typed(&statement, &[]).await;
    match rows {
        Ok(rows) => rows.first().map(|row| row.get(0)),
        Err(error) => {
            tracing::debug!(error = %error, "the rows of a table could not be counted");
            savepoint.rollback().await.ok()?;
            None
        }
    }
}

/// Texts, each cut short, and how long they are.
async fn sample(
    transaction: &mut Transaction<'_>,
    plan: &Plan<'_>,
    is_adopted: bool,
    blocks: f64,
) -> Option<Vec<(String, i32)>> {
    let part = match blocks > BLOCKS {
        true => format!("TABLESAMPLE SYSTEM ({})", 100.0 * BLOCKS / blocks),
        false => String::new(),
    };
    let statement = format!(
        "SELECT left(s.text, 20000), octet_length(s.text)
         FROM (SELECT {} AS text FROM {} AS t {part} WHERE {} LIMIT {SAMPLED}) AS s WHERE btrim(s.text, E' \\t\\n\\r') <> ''",
        plan.text.of(plan.id, "t"),
        plan.table.name,
        condition(plan, is_adopted)
    );
    let savepoint = transaction.transaction().await.ok()?;
    match savepoint.query_typed(&statement, &[]).await {
        Ok(rows) => Some(rows.iter().map(|row| (row.get(0), row.get(1))).collect()),
        Err(error) => {
            tracing::debug!(error = %error, "the texts of a table could not be sampled");
            savepoint.rollback().await.ok()?;
            None
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn mean(sampled: &[(String, i32)]) -> Option<f64> {
    let bytes: f64 = sampled.iter().map(|(_, bytes)| f64::from(*bytes)).sum();
    (!sampled.is_empty()).then(|| bytes / sampled.len() as f64)
}
