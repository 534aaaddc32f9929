//! Owns the pauses of providers' endpoints, for all instances. Refuses to judge who is to blame.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// Why and for how long an endpoint isn't asked.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    pub endpoint: String,
    pub seconds_left: f64,
    /// Only a person can mend it. Its time being over lets nobody ask but one canary.
    pub circuit: bool,
    pub message: String,
}

impl Store {
    /// Lets an endpoint rest. A longer rest that is there already stays, and so does a circuit that is open: requests
    /// that were under way when it opened end later, and know less. Of a circuit `rest` is the time to the first canary.
    pub async fn pause_endpoint(
        &self,
        endpoint: &str,
        rest: Duration,
        circuit: bool,
        message: &str,
    ) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO cronvec.provider_pauses AS p (endpoint, until, circuit, message)
             VALUES ($1, clock_timestamp() + make_interval(secs => $2), $3, $4)
             ON CONFLICT (endpoint) DO UPDATE SET
                 until = CASE WHEN p.circuit THEN p.until
                     ELSE greatest(p.until, excluded.until) END,
                 circuit = excluded.circuit OR p.circuit,
                 message = CASE WHEN p.circuit AND NOT excluded.circuit THEN p.message ELSE excluded.message END,
                 updated_at = now()",
            &[
                (&endpoint, Type::TEXT),
                (&rest.as_secs_f64(), Type::FLOAT8),
                (&circuit, Type::BOOL),
                (&message, Type::TEXT),
            ],
        )
        .await?;
        Ok(())
    }

    /// Whether the caller is the one who may send an open circuit's canary now. Nobody else may for `first`, doubled with
    /// each canary so far, and at most for `longest`.
    pub async fn take_canary(&self, endpoint: &str, first: Duration, longest: Duration) -> Result<bool, StoreError> {
        let taken = self
            .execute(
                "UPDATE cronvec.provider_pauses
                 SET canaries = canaries + 1, updated_at = now(),
                     until = clock_timestamp() + make_interval(secs => least($3, $2 * power(2, least(canaries + 1, 30))))
                 WHERE endpoint = $1 AND circuit AND until <= clock_timestamp()",
                &[
                    (&endpoint, Type::TEXT),
                    (&first.as_secs_f64(), Type::FLOAT8),
                    (&longest.as_secs_f64(), Type::FLOAT8),
                ],
            )
            .await?;
        Ok(taken == 1)
    }

    /// The canary found the circuit's cause still there; this is what it was told.
    pub async fn keep_circuit(&self, endpoint: &str, message: &str) -> Result<(), StoreError> {
        self.execute(
            "UPDATE cronvec.provider_pauses SET message = $2, updated_at = now() WHERE endpoint = $1 AND circuit",
            &[(&endpoint, Type::TEXT), (&message, Type::TEXT)],
        )
        .await?;
        Ok(())
    }

    /// The endpoint works again.
    pub async fn resume_endpoint(&self, endpoint: &str) -> Result<(), StoreError> {
        self.execute(
            "DELETE FROM cronvec.provider_pauses WHERE endpoint = $1",
            &[(&endpoint, Type::TEXT)],
        )
        .await?;
        Ok(())
    }

    /// Those that rest now, of these or of all; a circuit is open until it is closed.
    pub async fn pauses(&self, endpoints: Option<&[&str]>) -> Result<Vec<Pause>, StoreError> {
        let rows = self
            .query(
                "SELECT endpoint, greatest(extract(epoch FROM until - clock_timestamp()), 0)::float8, circuit, message
                 FROM cronvec.provider_pauses
                 WHERE (circuit OR until > clock_timestamp()) AND ($1::text[] IS NULL OR endpoint = ANY ($1))
                 ORDER BY endpoint LIMIT 1000",
                &[(&endpoints, Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Pause {
                endpoint: row.get(0),
                seconds_left: row.get(1),
                circuit: row.get(2),
                message: row.get(3),
            })
            .collect())
    }
}
