//! Owns a sample of the vectors that a table has already, each beside its text, for a look before they are adopted. Refuses to
//! judge them, and to leave anything behind.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::attach::{self, NewSource};
use super::compile::{Function, Plan};
use super::table::Column;
use cronvec_nouns::space::SpaceSpec;

/// Rows that are looked at.
const ROWS: i32 = 1000;
/// A sample with fewer is taken again from the whole table.
const ENOUGH: usize = 100;
/// Of a larger table only so many of its blocks are read, here and there.
const BLOCKS: f64 = 2000.0;
/// A longer text isn't fetched: it fits no chunk.
const MOST_BYTES: i64 = 256 << 10;
/// Text that is fetched in all.
const BYTES: i64 = 32 << 20;

const LIMITS: &str = "SET LOCAL row_security = off; SET LOCAL statement_timeout = '30s'; SET LOCAL jit = off;
    SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// A row's text, and the vector beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Absent where it is so long that it fits no chunk.
    pub text: Option<String>,
    pub vector: Vec<f32>,
}

impl Store {
    /// Rows from all over the table that would be records, have a text, and a vector that isn't all zeros; in no order. A few
    /// if there are few.
    pub async fn sample_for_adoption(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
    ) -> Result<Vec<Sampled>, StoreError> {
        let table = self.find_table(new.table).await?;
        let plan = self.plan(new, project, space, &table).await?;
        let Some(column) = plan.embedding_column.clone() else {
            return Ok(Vec::new());
        };
        let mut client = self.client().await?;
        // It is dropped, and so rolled back.
        let transaction = self.begin(&mut client, LIMITS).await?;
        let percent = (100.0 * BLOCKS / table.sizes(&transaction).await?.blocks.max(1.0)).min(100.0);
        let id = attach::reserve(&transaction).await?;
        let plan = Plan { id, ..plan };
        let mut ways = vec![plan.sample("whole", &column, "")];
        if percent < 100.0 {
            ways.insert(
                0,
                plan.sample("part", &column, &format!("TABLESAMPLE SYSTEM ({percent:.6})")),
            );
        }
        attach::make_look(&transaction, &plan, &ways.iter().collect::<Vec<_>>()).await?;
        let mut found = Vec::new();
        for way in ways {
            match read(&transaction, &way).await {
                Ok(sampled) => found = sampled,
                // What a part gave is enough where reading all takes too long.
                Err(error) if error.is_cancelled() && !found.is_empty() => break,
                Err(error) => return Err(error),
            }
            if found.len() >= ENOUGH {
                break;
            }
        }
        Ok(found)
    }
}

impl Plan<'_> {
    /// Texts and vectors of rows that are picked by chance, of the whole table or of a part. With the rights of the table's
    /// owner, as everything that runs an expression.
    fn sample(&self, name: &str, column: &Column, part: &str) -> Function {
        let body = format!(
            "BEGIN
    RETURN QUERY SELECT {}, t.{vector}::real[]
        FROM (SELECT * FROM {} AS t {part} WHERE {} AND t.{vector} IS NOT NULL ORDER BY random() LIMIT {ROWS}) AS t;
END",
            self.text.of(self.id, "t"),
            self.table.name,
            self.passes("t"),
            vector = column.quoted,
        );
        self.look(name, "RETURNS TABLE (content text, vector real[])", &body)
    }
}

async fn read(transaction: &Transaction<'_>, way: &Function) -> Result<Vec<Sampled>, StoreError> {
    let rows = transaction
        .query_typed(
            &format!(
                "SELECT CASE WHEN octet_length(s.content) <= $1 THEN s.content END, s.vector
                 FROM (
                     SELECT s.content, s.vector, s.nth,
                         sum(least(octet_length(s.content), $1)) OVER (ORDER BY s.nth) AS bytes
                     FROM {} WITH ORDINALITY AS s (content, vector, nth)
                     WHERE btrim(s.content, E' \\t\\n\\r') <> ''
                 ) AS s
                 WHERE s.bytes <= $2 ORDER BY s.nth",
                way.signature
            ),
            &[(&MOST_BYTES, Type::INT8), (&BYTES, Type::INT8)],
        )
        .await?;
    let sampled = rows.iter().map(|row| Sampled {
        text: row.get(0),
        vector: row.get(1),
    });
    Ok(sampled
        .filter(|sampled| sampled.vector.iter().any(|number| *number != 0.0))
        .collect())
}
