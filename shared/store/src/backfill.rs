//! Owns backfills: what is missing, the marking of it page by page, how far it has come. Refuses to embed anything.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// Texts whose tokens are counted for an estimate.
const SAMPLED: i64 = 200;

/// A backfill as it stands in the database.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backfill {
    #[serde(rename = "operation", serialize_with = "as_text", deserialize_with = "of_text")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: i64,
    pub project: String,
    #[serde(skip)]
    pub project_id: i32,
    /// `running`, `stopped`, `finished` or `rolled_back`.
    pub state: String,
    pub priority: i32,
    pub marked: i64,
    pub withdrawn: i64,
    pub rounds: i32,
    /// The tick that the furthest of its lanes is at; null: nobody drives it.
    #[serde(default)]
    pub iteration: Option<i64>,
    /// Ticks of each lane at most; null: as many as it takes.
    #[serde(default)]
    pub iterations: Option<i64>,
    /// Records of its project that were pending when it began.
    #[serde(skip)]
    pub found: i64,
    #[serde(skip)]
    pub cursor: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub ended_at: Option<OffsetDateTime>,
    /// Since somebody last drove it.
    #[serde(skip)]
    pub silent_seconds: f64,
}

fn as_text<S: serde::Serializer>(id: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn of_text<'a, D: serde::Deserializer<'a>>(deserializer: D) -> Result<i64, D::Error> {
    let text = <String as Deserialize>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// What a backfill would do.
#[derive(Debug, Clone)]
pub struct Missing {
    /// Records without vectors of their current text, those that wait already among them.
    pub records: i64,
    /// Of these, those that wait already.
    pub pending: i64,
    pub bytes: i64,
    /// Some of their texts, to count tokens in.
    pub sample: Vec<String>,
}

/// What one page of marking did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    pub looked_at: i64,
    pub marked: i64,
    /// The round is through.
    pub is_through: bool,
}

/// How far a backfill is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Left {
    /// Pending records of its project.
    pub records: i64,
    /// Of these, those that it marked.
    pub own: i64,
    /// And those whose time hasn't come.
    pub waiting: i64,
    pub seconds_to_first: Option<f64>,
    /// Of the records of its project, those that stand aside since it began.
    pub quarantined: i64,
}

/// A record without vectors of its current text in the project's live space, and in the next where there is one; one that
/// stands aside with that text doesn't count. `r`, `p` and `s` are there.
///
/// OFFSET keeps these from being planned as joins. Beside a table that was filled a moment ago, and has no statistics, such a
/// join read all of `embedded` for each record: 1.2 s for a page of a thousand beside 7,000, now 0.02 s.
const IS_MISSING: &str = "r.content IS NOT NULL
    AND NOT EXISTS (SELECT FROM cronvec.embedded e WHERE e.space_id = s.id AND e.project_id = p.id
        AND e.record_id = r.id AND e.content_hash = r.content_hash
        -- All of its chunks are there, and not only the word that they are.
        AND e.chunks = (SELECT count(*) FROM cronvec.chunks c WHERE c.space_id = s.id AND c.project_id = p.id
            AND c.record_id = r.id AND c.content_hash = r.content_hash) OFFSET 0)
    AND NOT EXISTS (SELECT FROM cronvec.quarantined_records q WHERE q.space_id = s.id AND q.project_id = p.id
        AND q.record_id = r.id AND q.content_hash = r.content_hash OFFSET 0)";

const VIEW: &str = "b.id, p.name, b.project_id, b.state, b.priority, b.marked, b.withdrawn, b.rounds, b.cursor,
    b.started_at, b.updated_at, b.ended_at, (extract(epoch FROM clock_timestamp() - b.updated_at))::float8,
    b.iteration, b.iterations, b.found";

fn backfill(row: &Row) -> Backfill {
    Backfill {
        id: row.get(0),
        project: row.get(1),
        project_id: row.get(2),
        state: row.get(3),
        priority: row.get(4),
        marked: row.get(5),
        withdrawn: row.get(6),
        rounds: row.get(7),
        cursor: row.get(8),
        started_at: row.get(9),
        updated_at: row.get(10),
        ended_at: row.get(11),
        silent_seconds: row.get(12),
        iteration: row.get(13),
        iterations: row.get(14),
        found: row.get(15),
    }
}

/// What waits in the lines of a project, `s.project_id`: the live space's and the next one's. Read one by one along their index.
const LINES: &str = "cronvec.project_spaces s CROSS JOIN LATERAL (
         SELECT * FROM cronvec.pending w WHERE s.role <> 'previous' AND w.line = (s.space_id::bigint << 32) + s.project_id
         OFFSET 0) AS w";

impl Store {
    /// Looks at all records of a project: for people, not for ticks.
    pub async fn missing(&self, project_id: i32) -> Result<Missing, StoreError> {
        let row = self
            .query_one(
                &format!(
                    "SELECT count(*), count(w.record_id), coalesce(sum(octet_length(r.content)), 0)::bigint
                     FROM cronvec.projects p JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                     JOIN cronvec.spaces s ON s.id = l.space_id
                     JOIN cronvec.records r ON r.project_id = p.id
                     LEFT JOIN cronvec.pending w ON w.record_id = r.id AND w.project_id = p.id AND w.space_id = s.id
                     WHERE p.id = $1 AND {IS_MISSING}"
                ),
                &[(&project_id, Type::INT4)],
            )
            .await?;
        let sample = self
            .query(
                &format!(
                    "SELECT left(r.content, 20000)
                     FROM cronvec.projects p JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                     JOIN cronvec.spaces s ON s.id = l.space_id
                     JOIN cronvec.records r ON r.project_id = p.id
                     WHERE p.id = $1 AND {IS_MISSING} ORDER BY r.id LIMIT $2"
                ),
                &[(&project_id, Type::INT4), (&SAMPLED, Type::INT8)],
            )
            .await?;
        Ok(Missing {
            records: row.get(0),
            pending: row.get(1),
            bytes: row.get(2),
            sample: sample.iter().map(|row| row.get(0)).collect(),
        })
    }

    /// The backfill of a project that isn't over, gone on with; else a new one. The bool says which: true is new.
    pub async fn begin_backfill(&self, project_id: i32, priority: i32) -> Result<(Backfill, bool), StoreError> {
        for _ in 0..3 {
            let resumed = self
                .query_opt(
                    &format!(
                        "UPDATE cronvec.backfills b SET state = 'running', updated_at = now(), iteration = NULL, iterations = NULL
                         FROM cronvec.projects p
                         WHERE b.project_id = $1 AND b.ended_at IS NULL AND p.id = b.project_id RETURNING {VIEW}"
                    ),
                    &[(&project_id, Type::INT4)],
                )
                .await?;
            if let Some(row) = resumed {
                return Ok((backfill(&row), false));
            }
            let made = self
                .query_opt(
                    &format!(
                        "WITH b AS (
                             INSERT INTO cronvec.backfills (project_id, priority, found)
                             SELECT $1, $2, count(*) FROM {LINES} WHERE s.project_id = $1 RETURNING *)
                         SELECT {VIEW} FROM b JOIN cronvec.projects p ON p.id = b.project_id"
                    ),
                    &[(&project_id, Type::INT4), (&priority, Type::INT4)],
                )
                .await;
            match made {
                Ok(Some(row)) => return Ok((backfill(&row), true)),
                Ok(None) => break,
                behind if super::numbers::are_behind(&behind) => self.mend_numbers(0).await?,
                // Somebody else began one at this moment: that one is gone on with.
                Err(error) if error.is_duplicate() => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unreadable("a backfill that was just begun".into()))
    }

    pub async fn backfills(&self, project: Option<&str>, limit: i64) -> Result<Vec<Backfill>, StoreError> {
        self.some_backfills(
            "$1::text IS NULL OR p.name = $1 ORDER BY b.id DESC LIMIT $2",
            &[(&project, Type::TEXT), (&limit, Type::INT8)],
        )
        .await
    }

    pub(super) async fn some_backfills(
        &self,
        which: &str,
        params: &[super::Param<'_>],
    ) -> Result<Vec<Backfill>, StoreError> {
        let rows = self
            .query(
                &format!(
                    "SELECT {VIEW} FROM cronvec.backfills b JOIN cronvec.projects p ON p.id = b.project_id WHERE {which}"
                ),
                params,
            )
            .await?;
        Ok(rows.iter().map(backfill).collect())
    }

    pub async fn backfill(&self, id: i64) -> Result<Backfill, StoreError> {
        let row = self
            .query_opt(
                &format!(
                    "SELECT {VIEW} FROM cronvec.backfills b JOIN cronvec.projects p ON p.id = b.project_id WHERE b.id = $1"
                ),
                &[(&id, Type::INT8)],
            )
            .await?;
        row.as_ref()
            .map(backfill)
            .ok_or_else(|| StoreError::Invalid(format!("no backfill {id}; cronvec backfill status lists them")))
    }

    /// Marks what is missing among the next records. Records that somebody has locked are left: who writes them marks
    /// them. `None` when the backfill doesn't run any more.
    pub async fn mark_page(&self, id: i64, page: i64) -> Result<Option<Marked>, StoreError> {
        let row = self
            .query_opt(
                &format!(
                    "WITH b AS MATERIALIZED (
                         SELECT * FROM cronvec.backfills WHERE id = $1 AND state = 'running' FOR NO KEY UPDATE
                     ), page AS MATERIALIZED (
                         SELECT r.project_id, r.id FROM b JOIN LATERAL (
                             SELECT r.project_id, r.id FROM cronvec.records r
                             WHERE r.project_id = b.project_id AND r.id > coalesce(b.cursor, '')
                             ORDER BY r.id LIMIT $2) AS r ON true
                     ), mine AS MATERIALIZED (
                         SELECT r.id, r.bucket FROM page CROSS JOIN LATERAL (
                             SELECT r.* FROM cronvec.records r
                             WHERE r.project_id = page.project_id AND r.id = page.id AND r.content IS NOT NULL
                                 AND NOT EXISTS (
                                     SELECT FROM cronvec.project_spaces l JOIN cronvec.embedded e
                                         ON e.space_id = l.space_id AND e.project_id = l.project_id AND e.record_id = r.id
                                             AND e.content_hash = r.content_hash
                                             AND e.chunks = (SELECT count(*) FROM cronvec.chunks c
                                                 WHERE c.space_id = e.space_id AND c.project_id = l.project_id
                                                     AND c.record_id = r.id AND c.content_hash = r.content_hash)
                                     WHERE l.project_id = page.project_id AND l.role = 'live' AND NOT EXISTS (
                                         SELECT FROM cronvec.project_spaces n
                                         WHERE n.project_id = page.project_id AND n.role = 'next'))
                             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
                     ), marked AS (
                         INSERT INTO cronvec.pending AS w (space_id, project_id, record_id, bucket, priority, operation)
                         SELECT s.id, p.id, r.id, r.bucket, b.priority, b.id
                         FROM b JOIN cronvec.projects p ON p.id = b.project_id
                         JOIN cronvec.project_spaces o ON o.project_id = p.id AND o.role <> 'previous'
                         JOIN cronvec.spaces s ON s.id = o.space_id
                         JOIN cronvec.records r ON r.project_id = p.id AND r.id = ANY (ARRAY(SELECT id FROM mine))
                         WHERE {IS_MISSING}
                             AND NOT EXISTS (SELECT FROM cronvec.pending there
                                 WHERE there.record_id = r.id AND there.project_id = p.id AND there.space_id = s.id OFFSET 0)
                         ORDER BY r.id, s.id
                         ON CONFLICT ON CONSTRAINT pending_pkey DO NOTHING
                         RETURNING 1
                     ), raised AS (
                         -- What waits already gets on as fast; whose it is doesn't change.
                         UPDATE cronvec.pending w SET priority = b.priority FROM b
                         WHERE w.project_id = b.project_id AND w.priority < b.priority
                             AND w.record_id = ANY (ARRAY(SELECT id FROM mine))
                     ), counted AS MATERIALIZED (
                         SELECT (SELECT count(*) FROM page) AS looked_at, (SELECT count(*) FROM marked) AS marked
                     )
                     UPDATE cronvec.backfills f
                     SET marked = b.marked + counted.marked, updated_at = clock_timestamp(),
                         cursor = CASE WHEN counted.looked_at = $2 THEN (SELECT max(id) FROM page) END,
                         rounds = b.rounds + CASE WHEN counted.looked_at < $2 THEN 1 ELSE 0 END
                     FROM b, counted WHERE f.id = b.id
                     RETURNING counted.looked_at, counted.marked"
                ),
                &[(&id, Type::INT8), (&page, Type::INT8)],
            )
            .await?;
        Ok(row.map(|row| {
            let looked_at: i64 = row.get(0);
            Marked {
                looked_at,
                marked: row.get(1),
                is_through: looked_at < page,
            }
        }))
    }

    /// What is left of it. It reads the project's whole line: ask now and then.
    pub async fn backfill_left(&self, backfill: &Backfill) -> Result<Left, StoreError> {
        let row = self
            .query_one(
                &format!(
                    "SELECT count(*), count(*) FILTER (WHERE w.operation = $1),
                     count(*) FILTER (WHERE w.not_before > clock_timestamp()),
                     (extract(epoch FROM min(w.not_before) - clock_timestamp()))::float8,
                     (SELECT count(*) FROM cronvec.quarantined_records q
                      WHERE q.project_id = $2 AND q.last_attempt_at >= $3)
                 FROM {LINES} WHERE s.project_id = $2"
                ),
                &[
                    (&backfill.id, Type::INT8),
                    (&backfill.project_id, Type::INT4),
                    (&backfill.started_at, Type::TIMESTAMPTZ),
                ],
            )
            .await?;
        Ok(Left {
            records: row.get(0),
            own: row.get(1),
            waiting: row.get(2),
            seconds_to_first: row.get(3),
            quarantined: row.get(4),
        })
    }

    /// Of what it marked the records that wait and that nobody has written since: what a rollback takes back. It reads the
    /// project's whole line: for people.
    pub async fn backfill_waiting(&self, backfill: &Backfill) -> Result<i64, StoreError> {
        let row = self
            .query_one(
                &format!(
                    "SELECT count(*) FROM {LINES}
                 JOIN cronvec.records r ON r.project_id = s.project_id AND r.id = w.record_id
                 WHERE s.project_id = $2 AND w.operation = $1 AND r.content IS NOT NULL AND r.accepted < $1"
                ),
                &[(&backfill.id, Type::INT8), (&backfill.project_id, Type::INT4)],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Somebody drives it from now on, with so many ticks of each lane at most.
    pub async fn drive_backfill(&self, id: i64, iterations: Option<i64>) -> Result<(), StoreError> {
        self.execute(
            "UPDATE cronvec.backfills SET iteration = 0, iterations = $2 WHERE id = $1",
            &[(&id, Type::INT8), (&iterations, Type::INT8)],
        )
        .await?;
        Ok(())
    }

    /// Whether it may go on; says, now and then, that somebody drives it, and at which of its ticks it is.
    pub async fn is_running(&self, id: i64, iteration: i64) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                "WITH seen AS (
                     UPDATE cronvec.backfills SET updated_at = clock_timestamp(), iteration = greatest(iteration, $2)
                     WHERE id = $1 AND state = 'running'
                         AND (updated_at < clock_timestamp() - interval '10 seconds' OR iteration < $2)
                 )
                 SELECT EXISTS (SELECT FROM cronvec.backfills WHERE id = $1 AND state = 'running')",
                &[(&id, Type::INT8), (&iteration, Type::INT8)],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Moves it on, unless it is over. `withdrawn` more of its rows are gone. Gives whether it did.
    pub async fn set_backfill(&self, id: i64, state: &str, withdrawn: u64) -> Result<bool, StoreError> {
        let withdrawn = i64::try_from(withdrawn).unwrap_or(i64::MAX);
        let moved = self
            .execute(
                "UPDATE cronvec.backfills SET state = $2, withdrawn = withdrawn + $3, updated_at = clock_timestamp(),
                     ended_at = CASE WHEN $2 IN ('finished', 'rolled_back') THEN clock_timestamp() END
                 WHERE id = $1 AND (ended_at IS NULL OR $2 = 'rolled_back')",
                &[(&id, Type::INT8), (&state, Type::TEXT), (&withdrawn, Type::INT8)],
            )
            .await?;
        Ok(moved == 1)
    }

    /// Sets how many VECTORIZE jobs of a project may run at once, if it has fewer. Lanes that an ended job holds stay held,
    /// each as all those that have records of it. Gives whether it changed.
    pub async fn raise_lanes(&self, project_id: i32, lanes: i16) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                "WITH project AS MATERIALIZED (
                     SELECT id, lanes FROM cronvec.projects WHERE id = $1 AND lanes < $2 FOR NO KEY UPDATE
                 ), raised AS (
                     UPDATE cronvec.projects p SET lanes = $2 FROM project WHERE p.id = project.id
                 ), held AS MATERIALIZED (
                     SELECT DISTINCT ON (h.space_id, bucket % $2) h.space_id, h.project_id, (bucket % $2)::smallint AS lane,
                         h.job_id, h.reason, h.until
                     FROM project JOIN cronvec.lane_holds h ON h.project_id = project.id
                     JOIN generate_series(0, 63) AS b (bucket) ON b.bucket % project.lanes = h.lane
                     WHERE h.until > statement_timestamp()
                     ORDER BY h.space_id, bucket % $2, h.until DESC
                 ), kept AS (
                     INSERT INTO cronvec.lane_holds AS h (space_id, project_id, lane, job_id, reason, until)
                     SELECT * FROM held ORDER BY space_id, lane
                     ON CONFLICT ON CONSTRAINT lane_holds_pkey DO UPDATE
                         SET job_id = excluded.job_id, reason = excluded.reason, until = excluded.until
                         WHERE h.until < excluded.until
                 )
                 SELECT EXISTS (SELECT FROM project)",
                &[(&project_id, Type::INT4), (&lanes, Type::INT2)],
            )
            .await?;
        Ok(row.get(0))
    }
}
