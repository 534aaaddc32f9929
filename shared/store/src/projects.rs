//! Owns the rows of projects. Refuses to make spaces by itself.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// A project as operators see it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    #[serde(skip)]
    pub id: i32,
    pub name: String,
    pub live_space: i32,
    pub next_space: Option<i32>,
    pub lanes: i16,
    pub paused: bool,
    /// It is being taken away: it takes no writes, and has no workers.
    pub removing: bool,
}

/// How much of a project is embedded, in records.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Coverage {
    pub project: String,
    pub total: i64,
    pub embedded: i64,
    pub pending: i64,
    pub quarantined: i64,
    pub percent: f64,
}

impl Store {
    /// The project of this name; made, with this space, if it isn't there.
    pub async fn ensure_project(&self, name: &str, space_id: i32, lanes: i16) -> Result<Project, StoreError> {
        if name.is_empty() || name.chars().count() > 200 || name.contains('\0') {
            return Err(StoreError::Invalid(
                "a project's name has 1 to 200 characters, none of them NUL".into(),
            ));
        }
        self.execute(
            "WITH made AS (
                 INSERT INTO cronvec.projects (name, lanes) VALUES ($1, $3)
                 ON CONFLICT ON CONSTRAINT projects_name DO NOTHING RETURNING id
             )
             INSERT INTO cronvec.project_spaces (project_id, space_id, role) SELECT id, $2, 'live' FROM made",
            &[(&name, Type::TEXT), (&space_id, Type::INT4), (&lanes, Type::INT2)],
        )
        .await?;
        self.project(name).await
    }

    pub async fn project(&self, name: &str) -> Result<Project, StoreError> {
        match self.find_project(name).await? {
            Some(project) if project.removing => Err(is_going(name)),
            Some(project) => Ok(project),
            None => Err(StoreError::NoProject(name.into())),
        }
    }

    /// Whatever state it is in.
    pub(super) async fn find_project(&self, name: &str) -> Result<Option<Project>, StoreError> {
        let all = self
            .select_projects("WHERE p.name = $1", &[(&name, Type::TEXT)])
            .await?;
        Ok(all.into_iter().next())
    }

    pub async fn projects(&self) -> Result<Vec<Project>, StoreError> {
        self.select_projects("ORDER BY p.name LIMIT 10000", &[]).await
    }

    async fn select_projects(&self, rest: &str, params: &[super::Param<'_>]) -> Result<Vec<Project>, StoreError> {
        let statement = format!(
            "SELECT p.id, p.name, l.space_id, n.space_id, p.lanes, p.paused, p.removing
                 FROM cronvec.projects p JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                 LEFT JOIN cronvec.project_spaces n ON n.project_id = p.id AND n.role = 'next' {rest}"
        );
        let rows = self.query(&statement, params).await?;
        Ok(rows
            .iter()
            .map(|row| Project {
                id: row.get(0),
                name: row.get(1),
                live_space: row.get(2),
                next_space: row.get(3),
                lanes: row.get(4),
                paused: row.get(5),
                removing: row.get(6),
            })
            .collect())
    }

    /// Counts the records of a project. It reads all of them: for people and reports, not for pages and ticks.
    pub async fn coverage(&self, name: &str) -> Result<Coverage, StoreError> {
        let row = self
            .query_opt(
                // What a large statement has changed in an attached table waits, though its record doesn't say so yet.
                "WITH noted AS MATERIALIZED (
                     SELECT DISTINCT i.id FROM cronvec.projects p
                     JOIN cronvec.sources s ON s.project_id = p.id
                     JOIN cronvec.source_notes n ON n.source_id = s.id CROSS JOIN unnest(n.ids) AS i (id)
                     WHERE p.name = $1 AND NOT EXISTS (
                         SELECT FROM cronvec.records r WHERE r.project_id = p.id AND r.id = i.id AND r.content IS NULL)
                 )
                 SELECT p.name,
                     (SELECT count(*) FROM cronvec.records r WHERE r.project_id = p.id AND r.content IS NOT NULL),
                     (SELECT count(*) FROM cronvec.embedded e
                      JOIN cronvec.records r ON r.project_id = e.project_id AND r.id = e.record_id
                          AND r.content_hash = e.content_hash
                      -- What is said to be shown counts only if all of it is there.
                      JOIN (SELECT c.record_id, c.content_hash, count(*) AS chunks FROM cronvec.chunks c
                            WHERE c.space_id = l.space_id AND c.project_id = p.id
                            GROUP BY c.record_id, c.content_hash) AS c
                          ON c.record_id = e.record_id AND c.content_hash = e.content_hash AND c.chunks >= e.chunks
                      WHERE e.space_id = l.space_id AND e.project_id = p.id
                          AND NOT EXISTS (SELECT FROM noted WHERE noted.id = e.record_id)
                          -- Those of rows that a large statement deleted are as good as gone.
                          AND ((SELECT NOT EXISTS (SELECT FROM cronvec.source_gone)) OR NOT EXISTS (
                              SELECT FROM cronvec.source_gone g WHERE g.project_id = p.id AND g.record_id = e.record_id))),
                     (SELECT count(*) FROM noted) + (SELECT count(*) FROM cronvec.pending w
                      JOIN cronvec.records r ON r.project_id = w.project_id AND r.id = w.record_id AND r.content IS NOT NULL
                      WHERE w.line = (l.space_id::bigint << 32) + p.id
                          AND NOT EXISTS (SELECT FROM noted WHERE noted.id = w.record_id)),
                     (SELECT count(*) FROM cronvec.quarantined_records q
                      WHERE q.space_id = l.space_id AND q.project_id = p.id)
                 FROM cronvec.projects p JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                 WHERE p.name = $1",
                &[(&name, Type::TEXT)],
            )
            .await?
            .ok_or_else(|| StoreError::NoProject(name.into()))?;
        let (records, embedded): (i64, i64) = (row.get(1), row.get(2));
        let total = self.total_of_attached(name, records).await.unwrap_or(records);
        // A record whose row is gone may be there until the next comparison.
        let embedded = embedded.min(total);
        #[allow(clippy::cast_precision_loss, reason = "a percentage")]
        let percent = if total == 0 {
            100.0
        } else {
            (embedded as f64 / total as f64 * 1e4).round() / 1e2
        };
        Ok(Coverage {
            project: row.get(0),
            total,
            embedded,
            pending: row.get(3),
            quarantined: row.get(4),
            percent,
        })
    }

    /// The rows of the project's attached table that are to be embedded, and its records of another origin. None where
    /// there is no table, or it can't be read: then its records are what is known.
    async fn total_of_attached(&self, project: &str, records: i64) -> Option<i64> {
        let sources = self.sources().await.ok()?;
        let source = sources.iter().find(|source| source.project == project)?;
        let counted = async { Ok::<_, StoreError>((self.count_rows(source).await?, self.strangers(source).await?)) };
        match counted.await {
            Ok((rows, Some(strangers))) => Some(rows + strangers),
            Ok((rows, None)) => Some(rows.max(records)),
            Err(error) => {
                tracing::warn!(project, error = %error, "the attached table can't be counted; its records are");
                None
            }
        }
    }
}

/// What the schema's functions refuse, in the server's words: a project that is being removed, or that a table feeds.
pub(super) fn refused(error: tokio_postgres::Error) -> StoreError {
    match error.as_db_error() {
        Some(server) if *server.code() == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
            StoreError::Conflict(match server.hint() {
                Some(hint) => format!("{}. {hint}", server.message()),
                None => server.message().to_owned(),
            })
        }
        _ => error.into(),
    }
}

/// What everybody is told who wants something of a project that is being taken away.
pub(super) fn is_going(name: &str) -> StoreError {
    StoreError::Conflict(format!(
        "project '{name}' is being removed; to go on with that: cronvec projects remove {name}"
    ))
}
