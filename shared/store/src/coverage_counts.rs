//! Owns the coverage of projects as it was counted last, so that a page may ask for it every few seconds. Refuses to count
//! again before that is cheap beside the time that has passed.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::projects::Coverage;
use super::{Store, StoreError};
use cronvec_nouns::token::Reach;

/// No count is older than this by our doing…
const FRESH_SECONDS: f64 = 5.0;
/// …unless counting took so long that it would be more than this share of the time.
const SHARE: f64 = 200.0;
/// Projects that are told of at once.
pub const MOST: i64 = 1000;
/// What is counted for one call of who asks every few seconds.
const GLANCE: Duration = Duration::from_millis(500);

/// How much of a project is embedded, and when that was counted.
#[derive(Debug, Clone)]
pub struct Counted {
    pub coverage: Coverage,
    pub at: OffsetDateTime,
}

/// A project, and its coverage if somebody has counted it yet.
#[derive(Debug, Clone)]
pub struct Covered {
    pub project: String,
    pub counted: Option<Counted>,
    /// Counted so long ago that it is to be counted again.
    is_stale: bool,
}

impl Store {
    /// The coverage of the first projects, by name, for who asks every few seconds. One that nobody has counted yet is left out.
    pub async fn counted_coverage(&self, reach: &Reach) -> Result<Vec<Counted>, StoreError> {
        let page = self.coverage_page(reach, None, MOST, GLANCE).await?;
        Ok(page.into_iter().filter_map(|one| one.counted).collect())
    }

    /// The coverage of projects, by name, behind this one. What is too old, or was never counted, is counted now, as far as
    /// `budget` goes, the oldest first.
    pub async fn coverage_page(
        &self,
        reach: &Reach,
        after: Option<&str>,
        limit: i64,
        budget: Duration,
    ) -> Result<Vec<Covered>, StoreError> {
        let began = Instant::now();
        let page = self.read_coverage(reach, after, limit).await?;
        let mut stale: Vec<&Covered> = page.iter().filter(|one| one.is_stale).collect();
        if stale.is_empty() {
            return Ok(page);
        }
        stale.sort_by_key(|one| one.counted.as_ref().map(|counted| counted.at));
        for one in stale {
            if began.elapsed() >= budget {
                break;
            }
            match self.count_coverage(&one.project).await {
                Ok(()) => {}
                // It was removed meanwhile.
                Err(StoreError::NoProject(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.read_coverage(reach, after, limit).await
    }

    async fn read_coverage(&self, reach: &Reach, after: Option<&str>, limit: i64) -> Result<Vec<Covered>, StoreError> {
        let rows = self
            .query(
                "SELECT p.name, c.total, c.embedded, c.pending, c.quarantined, c.percent, c.counted_at,
                     c.counted_at IS NULL
                         OR c.counted_at < clock_timestamp() - make_interval(secs => greatest($4, c.took_ms * $5 / 1000))
                 FROM cronvec.projects p LEFT JOIN cronvec.coverage_counts c ON c.project_id = p.id
                 WHERE ($1::text[] IS NULL OR p.name = ANY ($1)) AND ($2::text IS NULL OR p.name > $2)
                 ORDER BY p.name LIMIT $3",
                &[
                    (&reach.projects(), Type::TEXT_ARRAY),
                    (&after, Type::TEXT),
                    (&limit, Type::INT8),
                    (&FRESH_SECONDS, Type::FLOAT8),
                    (&SHARE, Type::FLOAT8),
                ],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Covered {
                project: row.get(0),
                counted: row.get::<_, Option<_>>(6).map(|at| counted(row, at)),
                is_stale: row.get(7),
            })
            .collect())
    }

    /// How many projects there are.
    pub async fn count_projects(&self, reach: &Reach) -> Result<i64, StoreError> {
        let row = self
            .query_one(
                "SELECT count(*) FROM cronvec.projects WHERE $1::text[] IS NULL OR name = ANY ($1)",
                &[(&reach.projects(), Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(row.get(0))
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

fn counted(row: &Row, at: OffsetDateTime) -> Counted {
    Counted {
        coverage: Coverage {
            project: row.get(0),
            total: row.get(1),
            embedded: row.get(2),
            pending: row.get(3),
            quarantined: row.get(4),
            percent: row.get(5),
        },
        at,
    }
}
