//! Owns the search from a vector to records. Refuses to embed the question.

use pgvector::Vector;
use serde_json::Value;
use tokio_postgres::types::Type;

use super::begin::Begin;
use super::{Store, StoreError};

/// Nobody waits longer for an answer.
const BEGIN: Begin =
    Begin::read("SET LOCAL statement_timeout = '20s'; SET LOCAL idle_in_transaction_session_timeout = '2s'");

/// A record that was found, by its best chunk.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hit {
    pub id: String,
    pub ordinal: i32,
    pub content: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: Value,
    /// Cosine similarity.
    pub score: f64,
    /// The text changed since; the new one isn't embedded yet.
    pub stale: bool,
}

impl Store {
    /// The nearest records of a project in one of its spaces, whose vectors the query is one of.
    pub async fn search(
        &self,
        project: &str,
        space_id: i32,
        query: &Vector,
        limit: i32,
        filter: Option<&Value>,
    ) -> Result<Vec<Hit>, StoreError> {
        let vector = self.vector_types().await?.vector.clone();
        let rows = self
            .query_in_transaction(
                BEGIN,
                "SELECT id, ordinal, content, metadata, score, stale FROM cronvec.search_in($1, $2, $3, $4, $5)",
                &[
                    (&project, Type::TEXT),
                    (&space_id, Type::INT4),
                    (query, vector),
                    (&limit, Type::INT4),
                    (&filter, Type::JSONB),
                ],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Hit {
                id: row.get(0),
                ordinal: row.get(1),
                content: row.get(2),
                metadata: row.get(3),
                score: row.get(4),
                stale: row.get(5),
            })
            .collect())
    }
}
