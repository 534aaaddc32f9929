//! Owns the rows and partitions of spaces. Refuses to decide which project uses which.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::again::until_done;
use super::{Store, StoreError};
use cronvec_nouns::space::{Space, SpaceSpec};

impl Store {
    /// The space of this description; made with its partitions if it isn't there. An explicit step, never a writer's.
    pub async fn ensure_space(&self, spec: &SpaceSpec) -> Result<Space, StoreError> {
        if let Some(space) = self.find_space(spec).await? {
            return Ok(space);
        }
        until_done!(self.again(), self.make_space(spec))?;
        self.find_space(spec)
            .await?
            .ok_or_else(|| StoreError::Unreadable("the space that was just made".into()))
    }

    async fn make_space(&self, spec: &SpaceSpec) -> Result<(), StoreError> {
        let vector = self.vector_schema().await?;
        let mut client = self.client().await?;
        // Attaching a partition takes a lock that readers and writers don't feel; whatever else holds the table, we
        // give way rather than make others queue behind us.
        let transaction = self.begin(&mut client, "SET LOCAL lock_timeout = '5s'").await?;
        let rows = transaction
            .query_typed(
                "INSERT INTO cronvec.spaces
                     (provider, model, dimensions, chunk_tokens, chunk_overlap, document_prefix, query_prefix)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT ON CONSTRAINT spaces_one_of_a_kind DO NOTHING RETURNING id",
                &[
                    (&spec.provider.as_str(), Type::TEXT),
                    (&spec.model, Type::TEXT),
                    (&i32::from(spec.dimensions), Type::INT4),
                    (&integer(spec.chunk_tokens)?, Type::INT4),
                    (&integer(spec.chunk_overlap)?, Type::INT4),
                    (&spec.document_prefix, Type::TEXT),
                    (&spec.query_prefix, Type::TEXT),
                ],
            )
            .await?;
        if let Some(row) = rows.first() {
            let id: i32 = row.get(0);
            let width = spec.dimensions;
            transaction
                .batch_execute(&format!(
                    "CREATE TABLE cronvec.chunks_{id} (LIKE cronvec.chunks INCLUDING DEFAULTS INCLUDING STORAGE,
                         CONSTRAINT chunks_{id}_space CHECK (space_id = {id}),
                         CONSTRAINT chunks_{id}_width CHECK ({vector}.vector_dims(embedding) = {width}));
                     ALTER TABLE cronvec.chunks ATTACH PARTITION cronvec.chunks_{id} FOR VALUES IN ({id});
                     CREATE TABLE cronvec.embedded_{id} (LIKE cronvec.embedded INCLUDING DEFAULTS,
                         CONSTRAINT embedded_{id}_space CHECK (space_id = {id}));
                     ALTER TABLE cronvec.embedded ATTACH PARTITION cronvec.embedded_{id} FOR VALUES IN ({id});"
                ))
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    pub async fn find_space(&self, spec: &SpaceSpec) -> Result<Option<Space>, StoreError> {
        let spaces = self.spaces().await?;
        Ok(spaces.into_iter().find(|space| space.spec == *spec))
    }

    /// Drops a space that no project uses, with its vectors. It gives way rather than make readers wait.
    pub async fn remove_space(&self, id: i32) -> Result<(), StoreError> {
        until_done!(self.again(), self.try_to_remove_space(id))
    }

    async fn try_to_remove_space(&self, id: i32) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, "SET LOCAL lock_timeout = '5s'").await?;
        let rows = transaction
            .query_typed(
                "SELECT EXISTS (SELECT FROM cronvec.project_spaces WHERE space_id = $1)
                 FROM cronvec.spaces WHERE id = $1 FOR UPDATE",
                &[(&id, Type::INT4)],
            )
            .await?;
        match rows.first().map(|row| row.get::<_, bool>(0)) {
            None => return Err(StoreError::Invalid(format!("no space {id}"))),
            Some(true) => return Err(StoreError::Conflict(format!("a project uses space {id}"))),
            Some(false) => {}
        }
        for statement in [
            "DELETE FROM cronvec.pending WHERE line BETWEEN ($1::bigint << 32) AND ($1::bigint << 32) + 2147483647",
            "DELETE FROM cronvec.quarantined_records WHERE space_id = $1",
            "DELETE FROM cronvec.lane_holds WHERE space_id = $1",
            "DELETE FROM cronvec.job_queue WHERE job_type = 'VECTORIZE' AND space_id = $1",
            "DELETE FROM cronvec.spaces WHERE id = $1",
        ] {
            transaction.execute_typed(statement, &[(&id, Type::INT4)]).await?;
        }
        transaction
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS cronvec.chunks_{id}; DROP TABLE IF EXISTS cronvec.embedded_{id}"
            ))
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Each space's chunks, as the planner estimates them.
    pub async fn space_sizes(&self) -> Result<Vec<(i32, i64)>, StoreError> {
        let rows = self
            .query(
                "SELECT s.id, greatest(c.reltuples, 0)::bigint FROM cronvec.spaces s
                 JOIN pg_class c ON c.relname = 'chunks_' || s.id AND c.relnamespace = 'cronvec'::regnamespace
                 ORDER BY s.id LIMIT 10000",
                &[],
            )
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// All spaces that this program's providers know; a space of an unknown provider is left to newer programs.
    pub async fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        let rows = self
            .query(
                "SELECT id, provider, model, dimensions, chunk_tokens, chunk_overlap, document_prefix, query_prefix
                 FROM cronvec.spaces ORDER BY id LIMIT 10000",
                &[],
            )
            .await?;
        let mut spaces = Vec::with_capacity(rows.len());
        for row in &rows {
            match space(row) {
                Ok(space) => spaces.push(space),
                Err(reason) => tracing::warn!(space.id = row.get::<_, i32>(0), reason, "a space is not served here"),
            }
        }
        Ok(spaces)
    }
}

fn space(row: &Row) -> Result<Space, String> {
    let number = |column: usize| u32::try_from(row.get::<_, i32>(column)).map_err(|error| error.to_string());
    Ok(Space {
        id: row.get(0),
        spec: SpaceSpec {
            provider: row.get::<_, &str>(1).parse()?,
            model: row.get(2),
            dimensions: u16::try_from(number(3)?).map_err(|error| error.to_string())?,
            chunk_tokens: number(4)?,
            chunk_overlap: number(5)?,
            document_prefix: row.get(6),
            query_prefix: row.get(7),
        },
    })
}

fn integer(number: u32) -> Result<i32, StoreError> {
    i32::try_from(number).map_err(|_| StoreError::Invalid(format!("{number} is too large for a chunk's size")))
}
