//! Owns what attaching a table would send: how many rows, how much text. Refuses to keep anything of the look.

use rand::Rng;
use tokio_postgres::{Row, Transaction};

use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::attach::{self, NewSource};
use super::compile::{Function, Plan};
use super::{Source, origins};
use cronvec_nouns::space::SpaceSpec;

/// Rows whose texts are looked at.
const SAMPLED: i64 = 200;
/// Of a table that has more blocks only about so many are looked at for these.
const BLOCKS: f64 = 200.0;
/// Counting takes no longer: what a table says of itself will do.
const LIMITS: &str =
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
        let mut transaction = self.begin(&mut client, LIMITS).await?;
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
        let sizes = table.sizes(&transaction).await?;
        let part = match sizes.blocks > BLOCKS {
            true => format!("TABLESAMPLE SYSTEM ({})", 100.0 * BLOCKS / sizes.blocks),
            false => String::new(),
        };
        let condition = plan.is_sent(new.adopt.is_some());
        let (counted, texts) = (plan.counted(&condition), plan.texts(&condition, &part));
        attach::make_look(&transaction, &plan, &[&counted, &texts]).await?;
        let counted = tried(&mut transaction, &format!("SELECT {}", counted.signature)).await;
        let (rows, is_exact) = match counted.as_deref() {
            Some([row]) => (row.get(0), true),
            _ => (sizes.rows, false),
        };
        let sampled = tried(&mut transaction, &format!("SELECT * FROM {}", texts.signature)).await;
        let sampled: Option<Vec<(String, i32)>> =
            sampled.map(|rows| rows.iter().map(|row| (row.get(0), row.get(1))).collect());
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

/// With the rights of the table's owner, as everything that runs an expression.
impl Plan<'_> {
    /// Which rows of `t` would be sent.
    fn is_sent(&self, is_adopted: bool) -> String {
        match self.embedding_column.as_ref().filter(|_| is_adopted) {
            Some(column) => format!("{} AND t.{} IS NULL", self.passes("t"), column.quoted),
            None => self.passes("t"),
        }
    }

    fn counted(&self, condition: &str) -> Function {
        let body = format!(
            "BEGIN RETURN (SELECT count(*) FROM {} AS t WHERE {condition}); END",
            self.table.name
        );
        self.look("counted", "RETURNS bigint", &body)
    }

    /// Texts, each cut short, and how long they are.
    fn texts(&self, condition: &str, part: &str) -> Function {
        let body = format!(
            "BEGIN
    RETURN QUERY SELECT left(s.text, 20000), octet_length(s.text)
        FROM (SELECT {} AS text FROM {} AS t {part} WHERE {condition} LIMIT {SAMPLED}) AS s
        WHERE btrim(s.text, E' \\t\\n\\r') <> '';
END",
            self.text.of(self.id, "t"),
            self.table.name,
        );
        self.look("texts", "RETURNS TABLE (content text, bytes int)", &body)
    }
}

/// None: it took too long, or an expression raises for a row.
async fn tried(transaction: &mut Transaction<'_>, statement: &str) -> Option<Vec<Row>> {
    let savepoint = transaction.transaction().await.ok()?;
    match savepoint.query_typed(statement, &[]).await {
        Ok(rows) => Some(rows),
        Err(error) => {
            tracing::debug!(error = %error, "the rows of a table could not be looked at");
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
