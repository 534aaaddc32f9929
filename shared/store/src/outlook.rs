//! Owns the pace at which projects move, and what keeps them from moving: what an estimate of time goes by. Refuses to count
//! what is left.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::jobs::rfc3339;
use super::{Store, StoreError};
use cronvec_nouns::token::Reach;

/// How a project moves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outlook {
    /// Records a second; none: nothing moves.
    pub per_second: Option<f64>,
    /// Why no worker takes its records, and none will before a person or a time has come.
    pub blocked: Option<String>,
    /// So long its endpoint rests.
    pub rest_seconds: f64,
}

impl Outlook {
    /// Until so many records are embedded; none where nothing moves, or nothing will.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn eta_seconds(&self, pending: i64) -> Option<f64> {
        match (pending, self.per_second) {
            (..=0, _) => Some(0.0),
            (_, Some(rate)) if self.blocked.is_none() && rate > 0.0 => {
                Some((self.rest_seconds + pending as f64 / rate).ceil())
            }
            _ => None,
        }
    }
}

/// The pace of those that are worked on is what their jobs did since they began; of the others what passes did in the minutes
/// of the last ten in which something moved.
const OUTLOOKS: &str = "WITH mine AS MATERIALIZED (
         SELECT p.id, p.name, p.paused, l.space_id, s.provider, s.model
         FROM cronvec.projects p JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
         JOIN cronvec.spaces s ON s.id = l.space_id
         WHERE $1::text[] IS NULL OR p.name = ANY ($1)
     ), worked AS MATERIALIZED (
         SELECT j.project_id, sum((j.progress->>'current')::float8
             / greatest(extract(epoch FROM clock_timestamp() - j.started_at), 1))::float8 AS per_second
         FROM cronvec.job_queue j
         WHERE j.status = 'PROCESSING' AND j.job_type = 'VECTORIZE' AND j.started_at > now() - interval '1 hour'
             AND (j.progress->>'current')::float8 > 0
         GROUP BY j.project_id
     ), lately AS MATERIALIZED (
         SELECT project, sum(value) FILTER (WHERE metric = 'records_embedded')
             / (60 * count(DISTINCT date_trunc('minute', timestamp))) AS per_second
         FROM cronvec.performance_metrics
         WHERE metric IN ('records_embedded', 'records_failed') AND timestamp > now() - interval '10 minutes'
         GROUP BY project
     ), held AS MATERIALIZED (
         SELECT DISTINCT ON (project_id, space_id) project_id, space_id, job_id, reason,
             CASE WHEN until < 'infinity' THEN until END AS until
         FROM cronvec.lane_holds WHERE until > statement_timestamp() ORDER BY project_id, space_id, until DESC
     ), resting AS MATERIALIZED (
         SELECT DISTINCT ON (provider, model) split_part(endpoint, '|', 1) AS provider, split_part(endpoint, '|', 3) AS model,
             endpoint, circuit, message, greatest(extract(epoch FROM until - clock_timestamp()), 0)::float8 AS seconds
         FROM cronvec.provider_pauses WHERE circuit OR until > clock_timestamp()
         ORDER BY provider, model, circuit DESC, until DESC
     )
     SELECT mine.name, mine.paused, coalesce(worked.per_second, lately.per_second), held.job_id, held.reason, held.until,
         resting.circuit, resting.endpoint, resting.message, resting.seconds
     FROM mine LEFT JOIN worked ON worked.project_id = mine.id
     LEFT JOIN lately ON lately.project = mine.name
     LEFT JOIN held ON held.project_id = mine.id AND held.space_id = mine.space_id
     LEFT JOIN resting ON resting.provider = mine.provider AND resting.model = mine.model
     WHERE mine.paused OR worked.per_second > 0 OR lately.per_second > 0 OR held.job_id IS NOT NULL
         OR resting.endpoint IS NOT NULL";

impl Store {
    /// By project; those of which there is nothing to say are left out.
    pub async fn outlooks(&self, reach: &Reach) -> Result<HashMap<String, Outlook>, StoreError> {
        let rows = self.query(OUTLOOKS, &[(&reach.projects(), Type::TEXT_ARRAY)]).await?;
        Ok(rows.iter().map(|row| (row.get(0), outlook(row))).collect())
    }

    pub async fn outlook(&self, project: &str) -> Result<Outlook, StoreError> {
        let reach = Reach::of(Some(vec![project.to_owned()]));
        Ok(self.outlooks(&reach).await?.remove(project).unwrap_or_default())
    }
}

fn outlook(row: &Row) -> Outlook {
    let circuit = row.get::<_, Option<bool>>(6).unwrap_or(false);
    Outlook {
        per_second: row.get::<_, Option<f64>>(2).filter(|rate| *rate > 0.0),
        blocked: blocked(row, circuit),
        rest_seconds: row.get::<_, Option<f64>>(9).filter(|_| !circuit).unwrap_or(0.0),
    }
}

/// The first that applies: each one hides those behind it.
fn blocked(row: &Row, circuit: bool) -> Option<String> {
    if row.get(1) {
        return Some("the project is stopped".to_owned());
    }
    if let Some(job) = row.get::<_, Option<i64>>(3) {
        let reason: &str = row.get(4);
        let until = match row.get::<_, Option<_>>(5) {
            Some(until) => format!("until {}", rfc3339(until)),
            None => "until somebody retries it".to_owned(),
        };
        return Some(format!("job {job} ended {reason} and holds its lane {until}"));
    }
    circuit.then(|| {
        let (endpoint, said): (&str, &str) = (row.get(7), row.get(8));
        format!("circuit open, {endpoint}: {said}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_end_in_sight_where_nothing_moves_or_will() {
        let moving = Outlook {
            per_second: Some(2.0),
            ..Outlook::default()
        };
        assert_eq!(moving.eta_seconds(11), Some(6.0));
        assert_eq!(Outlook::default().eta_seconds(11), None);
        assert_eq!(Outlook::default().eta_seconds(0), Some(0.0));
        let blocked = Outlook {
            blocked: Some("the project is stopped".into()),
            ..moving.clone()
        };
        assert_eq!(blocked.eta_seconds(11), None);
        let resting = Outlook {
            rest_seconds: 60.0,
            ..moving
        };
        assert_eq!(resting.eta_seconds(10), Some(65.0));
    }
}
