//! Owns that jobs are held while their project is paused, and only then: pause, resume, and jobs that are out of step.
//! `projects.paused` is the truth, `job_queue.held` follows it. Refuses to know who pauses, and why.

use tokio_postgres::types::Type;

use super::selection::JobFilter;
use super::stuck::Stuck;
use super::{Store, StoreError};
use cronvec_nouns::job::JobType;

/// Jobs that one statement moves.
const PAGE: i64 = 1000;
/// Pages that one tick aligns at most; the next tick continues.
const PAGES_A_TICK: usize = 20;

/// Jobs that are held though their project runs, and jobs of a paused project that a worker has or could claim; $1 of
/// each at most. None of them is looked for among those that are as they should be, of which there may be a million:
/// held ones are found project by project, and of a paused project only what stands in line, is due or is worked on
/// matters to anybody. What isn't due yet waits in any case.
const APART: &str = "holding (project_id) AS (
     (SELECT j.project_id FROM cronvec.job_queue j
      WHERE j.held AND j.status IN ('PENDING', 'PROCESSING') ORDER BY j.project_id LIMIT 1)
     UNION ALL
     SELECT following.project_id FROM holding CROSS JOIN LATERAL (
         SELECT j.project_id FROM cronvec.job_queue j
         WHERE j.held AND j.status IN ('PENDING', 'PROCESSING') AND j.project_id > holding.project_id
         ORDER BY j.project_id LIMIT 1) AS following
 ), stopped AS MATERIALIZED (
     SELECT p.id FROM cronvec.projects p WHERE p.paused AND NOT p.removing
 ), apart AS MATERIALIZED (
     (SELECT j.id, j.project_id FROM holding
      JOIN cronvec.projects p ON p.id = holding.project_id AND NOT p.paused
      CROSS JOIN LATERAL (
          SELECT j.id, j.project_id FROM cronvec.job_queue j
          WHERE j.held AND j.status IN ('PENDING', 'PROCESSING') AND j.project_id = p.id
          ORDER BY j.project_id, j.id LIMIT $1) AS j
      LIMIT $1)
     UNION ALL
     (SELECT j.id, j.project_id FROM stopped CROSS JOIN unnest(ARRAY['INGEST_DATA', 'VECTORIZE']) AS t (job_type)
      CROSS JOIN LATERAL (
          SELECT j.id, j.project_id FROM cronvec.job_queue j
          WHERE j.job_type = t.job_type AND j.project_id = stopped.id AND j.status = 'PENDING' AND j.turn IS NOT NULL
          ORDER BY j.space_id, j.priority DESC, j.turn, j.id LIMIT $1) AS j
      LIMIT $1)
     UNION ALL
     (SELECT j.id, j.project_id FROM (
          SELECT j.id, j.project_id FROM cronvec.job_queue j
          WHERE j.status = 'PENDING' AND j.turn IS NULL AND NOT j.held AND j.scheduled_for <= statement_timestamp()
          ORDER BY j.scheduled_for LIMIT $1) AS j
      JOIN stopped ON stopped.id = j.project_id)
     UNION ALL
     (SELECT j.id, j.project_id FROM cronvec.job_queue j JOIN stopped ON stopped.id = j.project_id
      WHERE j.status = 'PROCESSING' AND NOT j.held LIMIT $1)
 )";

/// The text of the alignment, for `EXPLAIN` too. $1: how many jobs.
pub fn align_statement() -> String {
    format!(
        "WITH RECURSIVE {APART}, projects AS MATERIALIZED (
             SELECT p.id, p.paused FROM cronvec.projects p
             WHERE p.id IN (SELECT project_id FROM apart) AND NOT p.removing
             ORDER BY p.id FOR SHARE SKIP LOCKED
         ), mine AS MATERIALIZED (
             SELECT j.id, projects.paused
             FROM (SELECT DISTINCT id, project_id FROM apart ORDER BY id LIMIT $1) AS apart
             JOIN projects ON projects.id = apart.project_id
             CROSS JOIN LATERAL (
                 SELECT j.id FROM cronvec.job_queue j
                 WHERE j.id = apart.id AND j.status IN ('PENDING', 'PROCESSING') AND j.held <> projects.paused
                 LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS j
         )
         UPDATE cronvec.job_queue j SET held = mine.paused, turn = NULL FROM mine WHERE j.id = mine.id
         RETURNING j.id"
    )
}

impl Store {
    /// Takes a project's jobs out of the line, or lets them stand in it anew. What a worker holds has its slice.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<(), StoreError> {
        self.project(name).await?;
        let row = self
            .query_opt(
                "UPDATE cronvec.projects SET paused = $2 WHERE name = $1 AND NOT removing RETURNING id",
                &[(&name, Type::TEXT), (&paused, Type::BOOL)],
            )
            .await?
            .ok_or_else(|| StoreError::NoProject(name.into()))?;
        let project_id: i32 = row.get(0);
        let mut after = 0;
        while let Some(last) = self.align_page(project_id, after).await? {
            after = last;
        }
        Ok(())
    }

    /// Brings jobs behind this one in step with their project as it is now, not as somebody wanted it: of a pause and a
    /// resumption at once both end with what came last. Gives the last job that was out of step, none at the end.
    async fn align_page(&self, project_id: i32, after: i64) -> Result<Option<i64>, StoreError> {
        let rows = self
            .query_along_index(
                // A held one with a turn would be found by none: a resumed one gets its place as one whose time has come.
                "WITH project AS MATERIALIZED (
                     -- Whoever changes it meanwhile waits for this page, and looks at the jobs after it.
                     SELECT id, name, paused FROM cronvec.projects WHERE id = $1 FOR SHARE
                 ), page AS MATERIALIZED (
                     SELECT j.id FROM project
                     CROSS JOIN unnest(ARRAY['PENDING', 'PROCESSING']) AS s (status)
                     CROSS JOIN LATERAL (
                         SELECT j.id FROM cronvec.job_queue j
                         -- As rows: the primary key would lead through all jobs there are.
                         WHERE (j.project, j.status, j.id) > (project.name, s.status, $2::bigint)
                             AND (j.project, j.status, j.id) <= (project.name, s.status, 9223372036854775807)
                             AND j.project_id = project.id AND j.held <> project.paused
                         ORDER BY j.project, j.status, j.id LIMIT $3) AS j
                     ORDER BY j.id LIMIT $3
                 ), mine AS MATERIALIZED (
                     SELECT j.id, project.paused FROM project CROSS JOIN page CROSS JOIN LATERAL (
                         SELECT j.id FROM cronvec.job_queue j
                         WHERE j.id = page.id AND j.status IN ('PENDING', 'PROCESSING') AND j.held <> project.paused
                         LIMIT 1 FOR NO KEY UPDATE) AS j
                 ), moved AS (
                     UPDATE cronvec.job_queue j SET held = mine.paused, turn = NULL FROM mine WHERE j.id = mine.id
                 )
                 SELECT max(id) FROM page",
                &[(&project_id, Type::INT4), (&after, Type::INT8), (&PAGE, Type::INT8)],
            )
            .await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Brings jobs in step that a pause or a resumption left behind. Bounded, waits for nobody. Returns how many it moved.
    pub async fn align_held(&self) -> Result<u64, StoreError> {
        let mut all = 0;
        for _ in 0..PAGES_A_TICK {
            let page = [(&PAGE as _, Type::INT8)];
            let moved = self.query_along_index(&align_statement(), &page).await?.len() as u64;
            all += moved;
            if moved < PAGE.unsigned_abs() {
                break;
            }
        }
        if all > 0 {
            tracing::warn!(
                jobs = all,
                "jobs were out of step with their projects' pauses; they are aligned"
            );
        }
        Ok(all)
    }

    /// The first jobs that are out of step, for people.
    pub(super) async fn out_of_step(&self, filter: &JobFilter, limit: i64) -> Result<Vec<Stuck>, StoreError> {
        let rows = self
            .query_along_index(
                &format!(
                    "WITH RECURSIVE {APART}
                     SELECT j.id, j.job_type, j.project, j.status, j.held,
                         extract(epoch FROM clock_timestamp() - greatest(j.scheduled_for, j.claimed_at))::float8 / 60
                     FROM (SELECT DISTINCT id FROM apart) AS apart JOIN cronvec.job_queue j ON j.id = apart.id
                     WHERE ($2::text IS NULL OR j.job_type = $2) AND ($3::text IS NULL OR j.project = $3)
                     ORDER BY j.id LIMIT $1"
                ),
                &[
                    (&limit, Type::INT8),
                    (&filter.job_type.map(JobType::as_str), Type::TEXT),
                    (&filter.project, Type::TEXT),
                ],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| {
                let project: String = row.get(2);
                let (kind, message, act) = match row.get(4) {
                    true => ("held", "it is held, though its project isn't stopped", "start"),
                    false => ("not_held", "its project is stopped, but it isn't held", "stop"),
                };
                Stuck {
                    kind: kind.to_owned(),
                    job_id: row.get::<_, i64>(0).to_string(),
                    job_type: row.get(1),
                    status: row.get(3),
                    minutes: (row.get::<_, f64>(5).max(0.0) * 10.0).round() / 10.0,
                    message: message.to_owned(),
                    mend: format!("the next tick aligns it; without ticks: cronvec {act} {project}"),
                    project,
                }
            })
            .collect())
    }
}
