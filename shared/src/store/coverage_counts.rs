//! Owns the coverage of projects as it was counted last, so that a page may ask for it every few seconds. Refuses to count
//! again before that is cheap beside the time that has passed.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::projects::Coverage;
use super::{Store, StoreError};
use crate::token::Reach;

/// No count is older than this by our doing…
const FRESH_SECONDS: f64 = 5.0;
/// …unless counting took so long that it would be more than this share of the time.
const SHARE: f64 = 200.0;
/// All that one call counts.
const BUDGET: Duration = Duration::from_millis(500);

/// How much of a project is embedded, and when that was counted.
#[derive(Debug, Clone)]
pub struct Counted {
    pub coverage: Coverage,
    pub at: OffsetDateTime,
}

impl Store {
    /// The coverage of projects, by name. What is too old, or was never counted, is counted now, as far as there is time;
    /// a project that nobody has counted yet is left out.
    pub async fn counted_coverage(&self, reach: &Reach) -> Result<Vec<Counted>, StoreError> {
        let began = Instant::now();
        for name in self.stale_coverage(reach).await? {
            if began.elapsed() >= BUDGET {
                break;
            }
            match self.count_coverage(&name).await {
                Ok(()) => {}
                // It was removed meanwhile.
                Err(StoreError::NoProject(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let rows = self
            .query(
                "SELECT p.name, c.total, c.embedded, c.pending, c.quarantined, c.percent, c.counted_at
                 FROM cronvec.projects p JOIN cronvec.coverage_counts c ON c.project_id = p.id
                 WHERE $1::text[] IS NULL OR p.name = ANY ($1) ORDER BY p.name LIMIT 1000",
                &[(&reach.projects(), Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(rows.iter().map(counted).collect())
    }

    async fn stale_coverage(&self, reach: &Reach) -> Result<Vec<String>, StoreError> {
        let rows = self
            .query(
                "SELECT p.name FROM cronvec.projects p LEFT JOIN cronvec.coverage_counts c ON c.project_id = p.id
                 WHERE ($1::text[] IS NULL OR p.name = ANY ($1))
                     AND (c.counted_at IS NULL
                         OR c.counted_at < clock_timestamp() - make_interval(secs => greatest($2, c.took_ms * $3 / 1000)))
                 ORDER BY c.counted_at NULLS FIRST, p.name LIMIT 1000",
                &[
                    (&reach.projects(), Type::TEXT_ARRAY),
                    (&FRESH_SECONDS, Type::FLOAT8),
                    (&SHARE, Type::FLOAT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn count_coverage(&self, name: &str) -> Result<(), StoreError> {
        let began = Instant::now();
        let coverage = self.coverage(name).await?;
        let took_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.execute(
            "INSERT INTO cronvec.coverage_counts AS c
                 (project_id, total, embedded, pending, quarantined, percent, took_ms, counted_at)
             SELECT id, $2, $3, $4, $5, $6, $7, clock_timestamp() FROM cronvec.projects WHERE name = $1
             ON CONFLICT (project_id) DO UPDATE SET total = excluded.total, embedded = excluded.embedded,
                 pending = excluded.pending, quarantined = excluded.quarantined, percent = excluded.percent,
                 took_ms = excluded.took_ms, counted_at = excluded.counted_at",
            &[
                (&name, Type::TEXT),
                (&coverage.total, Type::INT8),
                (&coverage.embedded, Type::INT8),
                (&coverage.pending, Type::INT8),
                (&coverage.quarantined, Type::INT8),
                (&coverage.percent, Type::FLOAT8),
                (&took_ms, Type::INT8),
            ],
        )
        .await?;
        Ok(())
    }
}

fn counted(row: &Row) -> Counted {
    Counted {
        coverage: Coverage {
            project: row.get(0),
            total: row.get(1),
            embedded: row.get(2),
            pending: row.get(3),
            quarantined: row.get(4),
            percent: row.get(5),
        },
        at: row.get(6),
    }
}
