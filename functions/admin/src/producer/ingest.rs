//! `POST /api/ingest`: many records in one body, as JSON, CSV or NDJSON.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cronvec_nouns::record::{self, Record, Rejection};
use cronvec_store::StoreError;
use cronvec_store::enqueue::NewJob;
use cronvec_store::records::Put;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::options::Options;
use super::pile::{MOST_RECORDS, Pile};
use super::record::new;
use crate::identity::{Caller, Writes};
use crate::request::{self, Kind};
use crate::{Admin, Refusal};

/// Records of a body that is embedded before it is answered.
const MOST_NOW: usize = 25;

/// The body in JSON.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Ingest<'a> {
    /// Where the records go.
    #[schema(value_type = String, example = "kb", min_length = 1, max_length = 200)]
    project: String,
    /// False: they are stored and nothing embeds them, until a backfill or their next write without it.
    #[schema(value_type = Option<bool>)]
    generate_embeddings: Option<bool>,
    /// Higher ones go first: low is -10, high is 10.
    #[schema(value_type = Option<i32>, minimum = -2147483647)]
    priority: Option<i32>,
    /// Attempts in all.
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 100)]
    max_attempts: Option<i32>,
    /// Not before then, as in RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime, example = "2030-01-01T00:00:00Z")]
    scheduled_for: Option<String>,
    /// The same key with the same body gives the same job, with another body a 409.
    #[schema(value_type = Option<String>, max_length = 500)]
    idempotency_key: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = Vec<IngestRecord>, min_items = 1, max_items = 10000)]
    records: Vec<&'a RawValue>,
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what a job's worker reads")]
pub(crate) struct IngestRecord {
    /// At most 1,000 characters.
    #[schema(example = "watering-tomatoes", min_length = 1, max_length = 1000)]
    id: String,
    #[schema(example = "Tomatoes like a deep drink in the morning.", min_length = 1)]
    content: String,
    #[schema(value_type = Option<Object>, example = json!({"topic": "gardening"}))]
    metadata: Option<serde_json::Value>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    #[schema(example = "4711")]
    job_id: String,
    /// Handed to the job; what becomes of them is its result.
    records: usize,
    /// Lines that no record can be made of, and that the job knows nothing of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Rejection>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    records: usize,
    /// Those of them whose vectors are of their text.
    embedded: u64,
    saved_count: u64,
    /// They were there already.
    skipped_count: u64,
    rejected: Vec<Rejection>,
}

/// Hands in many records as one job. Where `EMBEDDING_QUEUE_ENABLED` is false, at most 25 that are embedded at once.
#[utoipa::path(post, path = "/api/ingest", tag = "producer", operation_id = "ingest", params(Options),
    request_body(content((Ingest = "application/json"), (String = "text/csv"), (String = "application/x-ndjson")),
        description = "In JSON the options stand in the body, else in the query."),
    responses((status = 202, description = "A job stores them; its result says what became of each.", body = Accepted),
        (status = 200, description = "They are stored (EMBEDDING_QUEUE_ENABLED=false).", body = Stored),
        (status = 404, description = "No such project.", body = crate::openapi::Error),
        (status = 409, description = "The idempotency key was used for another body.", body = crate::openapi::Error)))]
pub(crate) async fn ingest(
    Writes(caller): Writes,
    State(admin): State<Admin>,
    request: Request,
) -> Result<Response, Refusal> {
    let kind = Kind::of(&request)?;
    let query = request.uri().query().map(str::to_owned);
    let largest = admin.largest_body();
    if kind == Kind::Json {
        if query.is_some_and(|query| !query.is_empty()) {
            return Err(Refusal::bad_request(
                "with a JSON body the options stand in the body, not in the query",
            ));
        }
        let body = request::bytes(request, largest).await?;
        let (options, pile) = of_json(&body)?;
        return take(&admin, &caller, &options, pile).await;
    }
    let options: Options = request::params(query.as_deref())?;
    caller.project(&options.project)?;
    let body = request::bytes(request, largest).await?;
    let pile = Pile::read(body, kind, admin.settings().max_content_bytes).await?;
    take(&admin, &caller, &options, pile).await
}

fn of_json(body: &Bytes) -> Result<(Options, Pile), Refusal> {
    let Ingest {
        records,
        project,
        generate_embeddings,
        priority,
        max_attempts,
        scheduled_for,
        idempotency_key,
    } = request::json(body)?;
    let options = Options {
        project,
        generate_embeddings,
        priority,
        max_attempts,
        scheduled_for,
        idempotency_key,
    };
    if records.len() > MOST_RECORDS {
        return Err(Pile::too_many());
    }
    let pile = Pile::of(records.iter().map(|record| record.get().as_bytes().to_vec()));
    Ok((options, pile))
}

async fn take(admin: &Admin, caller: &Caller, options: &Options, pile: Pile) -> Result<Response, Refusal> {
    caller.project(&options.project)?;
    if pile.records.is_empty() {
        return Err(match pile.rejected.first() {
            Some(first) => Refusal::field("records", format_args!("line {}: {}", first.line, first.reason)),
            None => Refusal::field("records", "there are none"),
        });
    }
    // What is wrong with the options is told in any case.
    let for_job = options.for_job(admin, pile.lines.clone())?;
    if admin.embeds_at_once() && options.may_be_now() {
        if pile.records.len() > MOST_NOW {
            let error = format!("EMBEDDING_QUEUE_ENABLED is false: a body has at most {MOST_NOW} records");
            return Err(Refusal::too_large(error));
        }
        return Ok(Json(now(admin, caller, options, pile).await?).into_response());
    }
    let records: Vec<&[u8]> = pile.records.iter().map(Vec::as_slice).collect();
    let job = NewJob {
        project: &options.project,
        records: &records,
        options: for_job,
    };
    let store = admin.store().await?;
    let enqueued = match store.enqueue(job.clone()).await {
        Err(StoreError::NoProject(_)) => {
            admin.make_project(caller, &options.project).await?;
            store.enqueue(job).await?
        }
        enqueued => enqueued?,
    };
    let accepted = Accepted {
        job_id: enqueued.job_id().to_string(),
        records: pile.records.len(),
        rejected: pile.rejected,
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

/// Each is stored like a `PUT`, then all are embedded together.
async fn now(admin: &Admin, caller: &Caller, options: &Options, pile: Pile) -> Result<Stored, Refusal> {
    let most = admin.settings().max_content_bytes;
    let records = pile.records.len();
    let mut rejected = pile.rejected;
    let mut good: Vec<Record> = Vec::new();
    for (line, json) in pile.lines.into_iter().zip(pile.records) {
        match record::parse(line, &json, most) {
            Ok(record) => good.push(record),
            Err(rejection) => rejected.push(rejection),
        }
    }
    let mut put: Vec<(Put, &Record)> = Vec::new();
    for record in &good {
        put.push((admin.put(caller, &new(&options.project, record)).await?, record));
    }
    let saved = put.iter().filter(|(put, _)| put.has_changed).count() as u64;
    let already = put.iter().filter(|(put, _)| put.is_embedded).count() as u64;
    let embedded = already + admin.embed(&put).await;
    rejected.sort_by_key(|rejection| rejection.line);
    Ok(Stored {
        records,
        embedded,
        saved_count: saved,
        skipped_count: put.len() as u64 - saved,
        rejected,
    })
}
