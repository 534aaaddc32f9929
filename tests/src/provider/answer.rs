//! Owns what a provider can answer, right and wrong; not when.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, header::CONTENT_TYPE};
use futures::StreamExt;
use serde_json::{Value, json};

use super::vectors;

/// An answer of the provider.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What was asked for.
    Right,
    /// The right vectors, the last first, each with its right index: legal, and a trap.
    Reversed,
    /// A status, headers and a body of one's own.
    Status {
        status: u16,
        headers: Vec<(String, String)>,
        body: Value,
    },
    /// This many vectors too few.
    Fewer(usize),
    /// The first vector has a NaN.
    NotANumber,
    /// The first vector is all zeros.
    Zero,
    /// All vectors have this width.
    Width(usize),
    /// What was asked for, after so long.
    Late(Duration),
    /// The connection ends in the middle of the body.
    CutShort,
    /// None ever, until the client gives up.
    Never,
}

impl Answer {
    /// An error in the shape that OpenAI gives it.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        let body = json!({"error": {"message": message, "type": kind, "param": null, "code": null}});
        Self::Status {
            status,
            headers: Vec::new(),
            body,
        }
    }

    /// 400, for an input that it doesn't take.
    pub fn rejected() -> Self {
        Self::error(400, "invalid_request_error", "an input is invalid")
    }

    /// 429 with `Retry-After` in seconds.
    pub fn throttled(retry_after_seconds: u64) -> Self {
        let Self::Status { status, body, .. } = Self::error(429, "requests", "rate limit reached") else {
            unreachable!("an error has a status")
        };
        Self::Status {
            status,
            headers: vec![("retry-after".into(), retry_after_seconds.to_string())],
            body,
        }
    }

    pub(super) fn respond(
        &self,
        inputs: &[String],
        width: usize,
        write: impl Fn(&[(usize, Vec<f32>)]) -> String,
    ) -> Response<Body> {
        let width = if let Self::Width(wrong) = self { *wrong } else { width };
        let mut vectors: Vec<(usize, Vec<f32>)> = inputs
            .iter()
            .map(|input| vectors::vector(input, width))
            .enumerate()
            .collect();
        match self {
            Self::Status { status, headers, body } => {
                let mut response = Response::builder()
                    .status(*status)
                    .header(CONTENT_TYPE, "application/json");
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                return response.body(Body::from(body.to_string())).expect("a response");
            }
            Self::Reversed => vectors.reverse(),
            Self::Fewer(missing) => vectors.truncate(vectors.len().saturating_sub(*missing)),
            Self::NotANumber => spoil(&mut vectors, |vector| vector[0] = f32::NAN),
            Self::Zero => spoil(&mut vectors, |vector| vector.fill(0.0)),
            Self::Right | Self::Late(_) | Self::Width(_) | Self::CutShort | Self::Never => {}
        }
        let body = write(&vectors);
        let body = if matches!(self, Self::CutShort) {
            let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
            // Had the error come at once, not even the status would be sent.
            let cut = futures::stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("cut short"))
            });
            Body::from_stream(futures::stream::iter([Ok(half)]).chain(cut))
        } else {
            Body::from(body)
        };
        Response::builder()
            .status(StatusCode::OK)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .expect("a response")
    }
}

fn spoil(vectors: &mut [(usize, Vec<f32>)], with: impl Fn(&mut Vec<f32>)) {
    if let Some((_, vector)) = vectors.first_mut() {
        with(vector);
    }
}
