//! What a producer may ask of a job, as it stands in a body or in a query.

use cronvec_store::enqueue::{EnqueueOptions, Retries};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use crate::{Admin, Refusal};

/// Attempts that a job may have at most.
const MOST_ATTEMPTS: i32 = 100;

#[derive(Clone, Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[schema(as = JobOptions)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Options {
    /// Where the records go; needed unless the body is JSON.
    #[param(required = false, example = "kb", min_length = 1, max_length = 200)]
    #[schema(example = "kb", min_length = 1, max_length = 200)]
    pub project: String,
    /// False: they are stored and nothing embeds them, until a backfill or their next write without it.
    pub generate_embeddings: Option<bool>,
    /// Higher ones go first: low is -10, high is 10.
    #[param(minimum = -2147483647)]
    #[schema(minimum = -2147483647)]
    pub priority: Option<i32>,
    /// Attempts in all.
    #[param(minimum = 1, maximum = 100)]
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<i32>,
    /// Not before then, as in RFC 3339.
    #[param(format = DateTime, example = "2030-01-01T00:00:00Z")]
    #[schema(format = DateTime, example = "2030-01-01T00:00:00Z")]
    pub scheduled_for: Option<String>,
    /// The same key with the same body gives the same job, with another body a 409.
    #[param(max_length = 500)]
    #[schema(min_length = 1, max_length = 500)]
    pub idempotency_key: Option<String>,
}

impl Options {
    /// As the store wants them; `lines` are where the records stood.
    pub fn for_job(&self, admin: &Admin, lines: Vec<i32>) -> Result<EnqueueOptions, Refusal> {
        let embedding = &admin.settings().embedding;
        if self
            .max_attempts
            .is_some_and(|attempts| !(1..=MOST_ATTEMPTS).contains(&attempts))
        {
            return Err(Refusal::field(
                "maxAttempts",
                format_args!("it is a whole number from 1 to {MOST_ATTEMPTS}"),
            ));
        }
        if self.priority == Some(i32::MIN) {
            return Err(Refusal::field(
                "priority",
                format_args!("it is larger than {}", i32::MIN),
            ));
        }
        let scheduled_for = match &self.scheduled_for {
            None => None,
            Some(text) => Some(
                OffsetDateTime::parse(text, &Rfc3339)
                    .map_err(|_| Refusal::field("scheduledFor", "it is a time as in 2030-01-01T00:00:00Z"))?,
            ),
        };
        if let Some(key) = &self.idempotency_key
            && (key.is_empty() || key.len() > 500 || key.contains('\0'))
        {
            return Err(Refusal::field(
                "idempotencyKey",
                "it has 1 to 500 bytes, none of them NUL",
            ));
        }
        Ok(EnqueueOptions {
            priority: self.priority.unwrap_or(0),
            max_attempts: self.max_attempts,
            otherwise: Retries {
                max_attempts: embedding.max_attempts,
                backoff_ms: i32::try_from(embedding.backoff_base.as_millis()).unwrap_or(i32::MAX),
            },
            scheduled_for,
            embed: self.generate_embeddings.unwrap_or(true),
            idempotency_key: self.idempotency_key.clone(),
            lines: Some(lines),
            ..EnqueueOptions::default()
        })
    }

    /// Whether it may be stored and embedded before it is answered.
    pub fn may_be_now(&self) -> bool {
        self.generate_embeddings != Some(false) && self.scheduled_for.is_none()
    }
}
