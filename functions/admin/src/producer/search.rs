//! `POST /api/search`

use axum::Json;
use axum::extract::State;
use cronvec_search::SearchError;
use cronvec_store::search::Hit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::identity::Reads;
use crate::request::Body;
use crate::{Admin, Refusal};

const MOST_RESULTS: i32 = 100;
const LONGEST_QUERY: usize = 32 * 1024;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    #[schema(example = "kb")]
    project: String,
    /// What is looked for, in words.
    #[schema(example = "vegetables in the garden", min_length = 1)]
    query: String,
    /// So many records at most.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    limit: i32,
    /// Only records whose metadata contains this.
    #[schema(value_type = Option<Object>, example = json!({"topic": "gardening"}))]
    filter: Option<Value>,
}

fn ten() -> i32 {
    10
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Found {
    /// The best chunk of each record, the nearest first; `score` is the cosine similarity.
    results: Vec<Hit>,
}

/// The records nearest to a text.
#[utoipa::path(post, path = "/api/search", tag = "producer", operation_id = "search", request_body = Question,
    responses((status = 200, description = "The nearest records.", body = Found),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn search(
    Reads(caller): Reads,
    State(admin): State<Admin>,
    Body(question): Body<Question>,
) -> Result<Json<Found>, Refusal> {
    caller.project(&question.project)?;
    if question.query.trim().is_empty() || question.query.len() > LONGEST_QUERY {
        return Err(Refusal::field(
            "query",
            format_args!("it is a text of at most {LONGEST_QUERY} bytes"),
        ));
    }
    if !(1..=MOST_RESULTS).contains(&question.limit) {
        return Err(Refusal::field(
            "limit",
            format_args!("it is a number from 1 to {MOST_RESULTS}"),
        ));
    }
    if question.filter.as_ref().is_some_and(|filter| !filter.is_object()) {
        return Err(Refusal::field("filter", "it is a JSON object"));
    }
    if !admin.settings().embedding.search_enabled {
        return Err(Refusal::unavailable(
            "search is switched off: SEMANTIC_SEARCH_ENABLED is false",
        ));
    }
    let asked = cronvec_search::Question {
        project: &question.project,
        text: &question.query,
        limit: question.limit,
        filter: question.filter.as_ref(),
        heeds_rests: true,
    };
    let store = admin.store().await?;
    let found = cronvec_search::search(store, &admin.settings().embedding, admin.secrets(), asked).await;
    Ok(Json(Found {
        results: found.map_err(refused)?,
    }))
}

fn refused(error: SearchError) -> Refusal {
    match error {
        SearchError::Store(error) => error.into(),
        SearchError::Text(fault) => Refusal::field("query", fault),
        SearchError::Unserved(unserved) => {
            tracing::error!(error = %unserved, "a project's space is not served here");
            Refusal::unavailable("the project's provider isn't configured here; the log says why")
        }
        SearchError::Provider { endpoint, failure } => {
            tracing::error!(provider.endpoint = endpoint, error = %failure, "a question could not be embedded");
            Refusal::unavailable("the provider that embeds questions doesn't answer")
        }
        error @ (SearchError::Resting { .. } | SearchError::NoVector) => Refusal::unavailable(error.to_string()),
    }
}
