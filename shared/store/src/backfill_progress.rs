//! Owns how far a backfill is, as everybody is told: command line, API and page. Refuses to move it on.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::backfill::Backfill;
use super::{Store, StoreError};
use cronvec_nouns::token::Reach;

/// How far the backfill is, and the project that it is of.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HowFar {
    /// All of the project's records that are pending, whoever marked them.
    pub pending: i64,
    /// Of those that were pending when it began or that it marked, those that aren't any more.
    pub percent: f64,
    /// Records of the project that are embedded in a second; null: nothing moves.
    pub per_second: Option<f64>,
    /// Until nothing of the project is pending; null: nothing moves.
    pub eta_seconds: Option<f64>,
    /// Why nothing can move: the project is stopped, a job holds its lane, a circuit is open.
    pub blocked: Option<String>,
}

impl Backfill {
    /// Every record was looked at.
    pub fn has_marked_all(&self) -> bool {
        self.rounds > 0 && self.cursor.is_none()
    }

    /// `left` of what it marked is pending, and so many records of its project in all.
    fn percent(&self, left: i64, pending: i64) -> f64 {
        let marked = self.marked - self.withdrawn;
        let is_over = matches!(self.state.as_str(), "finished" | "rolled_back");
        let (done, of) = match is_over {
            true => (marked - left, marked),
            false => (self.found + marked - pending, self.found + marked),
        };
        match of {
            // While it looks for what is missing nobody knows.
            ..=0 if !is_over && (pending > 0 || !self.has_marked_all()) => 0.0,
            ..=0 => 100.0,
            _ => share(done.clamp(0, of), of),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a percentage")]
fn share(part: i64, of: i64) -> f64 {
    (part as f64 / of as f64 * 1e4).floor() / 1e2
}

impl Store {
    /// `left` of what it marked is pending.
    pub async fn how_far(&self, backfill: &Backfill, left: i64) -> Result<HowFar, StoreError> {
        let pending = self.backfill_left(backfill).await?.records;
        let outlook = self.outlook(&backfill.project).await?;
        Ok(HowFar {
            pending,
            percent: backfill.percent(left, pending),
            eta_seconds: outlook.eta_seconds(pending),
            per_second: outlook.per_second.map(|rate| (rate * 10.0).round() / 10.0),
            blocked: outlook.blocked,
        })
    }

    /// Backfills that run, by project: at most one each.
    pub async fn running_backfills(&self, reach: &Reach) -> Result<Vec<Backfill>, StoreError> {
        self.some_backfills(
            "b.state = 'running' AND b.ended_at IS NULL AND ($1::text[] IS NULL OR p.name = ANY ($1))
             ORDER BY b.id DESC LIMIT 1000",
            &[(&reach.projects(), Type::TEXT_ARRAY)],
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn backfill(state: &str, found: i64, marked: i64, rounds: i32) -> Backfill {
        Backfill {
            id: 1,
            project: "articles".into(),
            project_id: 1,
            state: state.into(),
            priority: 0,
            marked,
            withdrawn: 0,
            rounds,
            iteration: None,
            iterations: None,
            found,
            cursor: None,
            started_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            ended_at: None,
            silent_seconds: 0.0,
        }
    }

    #[test]
    fn what_waited_before_counts_as_much_as_what_was_marked() {
        assert_eq!(backfill("running", 400, 0, 1).percent(0, 400), 0.0);
        assert_eq!(backfill("running", 400, 0, 1).percent(0, 100), 75.0);
        assert_eq!(backfill("running", 100, 300, 1).percent(300, 400), 0.0);
        assert_eq!(backfill("stopped", 0, 300, 1).percent(75, 75), 75.0);
        // Users have written since.
        assert_eq!(backfill("running", 10, 0, 1).percent(0, 50), 0.0);
        assert_eq!(backfill("finished", 10, 90, 1).percent(0, 50), 100.0);
        assert_eq!(backfill("finished", 10, 0, 1).percent(0, 50), 100.0);
    }

    #[test]
    fn nobody_says_100_percent_before_all_records_were_looked_at() {
        assert_eq!(backfill("running", 0, 0, 0).percent(0, 0), 0.0);
        assert_eq!(backfill("running", 0, 0, 1).percent(0, 0), 100.0);
        assert_eq!(backfill("running", 0, 0, 1).percent(0, 7), 0.0);
    }
}
