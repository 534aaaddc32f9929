//! Large ingestion: a job is opened, handed in as several bodies, and closed. Bodies go into staging as they come, so that
//! none is ever held as a whole.

use axum::Json;
use axum::body::BodyDataStream;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use cronvec_nouns::record::Rejection;
use cronvec_reading::{self as reading, Fields, Format, ReadError, Rules};
use cronvec_store::StoreError;
use cronvec_store::bodies::{Body as Whole, Closed, MOST_BODIES, Part};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::options::Options;
use super::pieces::{Arriving, Pieces};
use crate::identity::{Caller, Writes};
use crate::queue::act::project_of;
use crate::request::{At, Body, Kind, number, too_large};
use crate::{Admin, Refusal};

/// What a body may have whatever the bound of a record is.
const MOST_BYTES: usize = 6 << 20;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Opened {
    #[schema(example = "4711")]
    job_id: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Taken {
    /// Its number.
    #[schema(example = 1)]
    body: i32,
    /// Staged; what becomes of them is in the job's result.
    records: i32,
    /// Lines of the body, by which the next body's are numbered on.
    lines: i32,
    /// Lines that no record can be made of, and that the job knows nothing of; the first thousand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Rejection>,
    rejected_count: u64,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Close {
    /// How many there are: numbers 1 to this.
    #[schema(minimum = 1, maximum = 10000, example = 2)]
    bodies: i32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Handed {
    #[schema(example = "4711")]
    job_id: String,
    /// Of all bodies.
    records: i64,
}

/// Opens a job that is handed in as several bodies. It runs when it is closed, and is dropped when that hasn't happened
/// within a day.
#[utoipa::path(post, path = "/api/ingest/jobs", tag = "producer", operation_id = "openJob", request_body = Options,
    responses((status = 201, description = "Its bodies can come.", body = Opened),
        (status = 200, description = "The idempotency key's job, which is there already.", body = Opened),
        (status = 404, description = "No such project.", body = crate::openapi::Error),
        (status = 409, description = "The idempotency key was used for something else.", body = crate::openapi::Error)))]
pub(crate) async fn open(
    Writes(caller): Writes,
    State(admin): State<Admin>,
    Body(options): Body<Options>,
) -> Result<(StatusCode, Json<Opened>), Refusal> {
    let project = caller.project(&options.project)?;
    let mut for_job = options.for_job(&admin, Vec::new())?;
    for_job.lines = None;
    let store = admin.store().await?;
    let opened = match store.open_job(project, for_job.clone()).await {
        Err(StoreError::NoProject(_)) => {
            admin.make_project(&caller, project).await?;
            store.open_job(project, for_job).await?
        }
        opened => opened?,
    };
    let status = match opened {
        cronvec_store::enqueue::Enqueued::New(_) => StatusCode::CREATED,
        cronvec_store::enqueue::Enqueued::Same(_) => StatusCode::OK,
    };
    let job_id = opened.job_id().to_string();
    Ok((status, Json(Opened { job_id })))
}

/// Stages one body of an open job, all of it or nothing. The same again changes nothing.
#[utoipa::path(put, path = "/api/ingest/jobs/{id}/bodies/{body}", tag = "producer", operation_id = "putBody",
    params(("id" = String, Path, description = "The job's.", example = "4711"),
        ("body" = i32, Path, description = "Its number, which is its place among the bodies.", minimum = 1, maximum = 10000,
            example = 1)),
    request_body(content((String = "application/x-ndjson"), (String = "text/csv")),
        description = "Records, gzipped or not; each CSV begins with its header."),
    responses((status = 201, description = "It is staged.", body = Taken),
        (status = 200, description = "It was there already.", body = Taken),
        (status = 404, description = "No such job.", body = crate::openapi::Error),
        (status = 409, description = "The job takes no bodies any more, or another body has this number.",
            body = crate::openapi::Error)))]
pub(crate) async fn put(
    Writes(caller): Writes,
    State(admin): State<Admin>,
    At((id, body)): At<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<Taken>), Refusal> {
    let id = job(&admin, &caller, &id).await?;
    let body = number("body", &body)
        .ok()
        .filter(|body| (1..=MOST_BODIES).contains(body));
    let body = body.ok_or_else(|| Refusal::field("body", format_args!("it is a number from 1 to {MOST_BODIES}")))?;
    let format = match Kind::of(&request)? {
        Kind::Csv => Format::Csv { delimiter: b',' },
        Kind::Ndjson => Format::Ndjson,
        Kind::Json => {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a body of a job is application/x-ndjson or text/csv",
            ));
        }
    };
    let rules = Rules {
        format: Some(format),
        fields: Fields::default(),
        max_content_bytes: admin.settings().max_content_bytes,
    };
    // It is staged as it comes and never held: the bound is what one call may have.
    let most = admin.largest_body().max(MOST_BYTES);
    if crate::request::length(&request).is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    let (bytes, arriving) = mpsc::channel(4);
    let (parts, staged) = mpsc::channel(1);
    // Reading is work for a processor: other requests' thread is left alone.
    let reading = tokio::task::spawn_blocking(move || read(Arriving::of(arriving), &rules, parts));
    let passing = pass_on(request.into_body().into_data_stream(), bytes, most);
    let (passed, put) = tokio::join!(passing, admin.store().await?.put_body(id, body, staged));
    // What the store says comes first: it may be why the others ended.
    let put = put?;
    passed?;
    let read = reading.await.map_err(|error| Refusal::internal(&error))?;
    let (whole, pieces) = read.map_err(|error| Refusal::bad_request(format!("the body: {error}")))?;
    let Some(is_new) = put else {
        return Err(Refusal::bad_request("the body breaks off"));
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let taken = Taken {
        body,
        records: whole.records,
        lines: whole.lines,
        rejected: pieces.rejected,
        rejected_count: pieces.rejected_count,
    };
    Ok((status, Json(taken)))
}

/// Hands the bytes on as they come; whoever reads them hears of it when they break off.
async fn pass_on(
    mut body: BodyDataStream,
    into: mpsc::Sender<std::io::Result<axum::body::Bytes>>,
    most: usize,
) -> Result<(), Refusal> {
    let mut came = 0_usize;
    let mut refused = Ok(());
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| {
            refused = Err(Refusal::bad_request("the body breaks off"));
            std::io::Error::other(error)
        });
        came = came.saturating_add(bytes.as_ref().map_or(0, axum::body::Bytes::len));
        let bytes = if came > most {
            refused = Err(too_large(most));
            Err(std::io::Error::other("too large"))
        } else {
            bytes
        };
        // Nobody reads any more: they say why.
        if into.send(bytes).await.is_err() || refused.is_err() {
            break;
        }
    }
    refused
}

/// Cuts a body into pieces as it comes. The end is told only when all of it could be read.
fn read(mut source: Arriving, rules: &Rules, parts: mpsc::Sender<Part>) -> Result<(Whole, Pieces), ReadError> {
    let mut pieces = Pieces::into(parts);
    let lines = reading::read(&mut source, rules, &mut pieces)?;
    let whole = pieces.end(source.hash()?, lines)?;
    Ok((whole, pieces))
}

/// Lets a job run that has all its bodies. Lines are numbered through them.
#[utoipa::path(post, path = "/api/ingest/jobs/{id}/close", tag = "producer", operation_id = "closeJob",
    params(("id" = String, Path, example = "4711")), request_body = Close,
    responses((status = 202, description = "It is a job like any other.", body = Handed),
        (status = 404, description = "No such job.", body = crate::openapi::Error),
        (status = 409, description = "A body is missing, or there are more.", body = crate::openapi::Error)))]
pub(crate) async fn close(
    Writes(caller): Writes,
    State(admin): State<Admin>,
    At(id): At<String>,
    Body(close): Body<Close>,
) -> Result<(StatusCode, Json<Handed>), Refusal> {
    let id = job(&admin, &caller, &id).await?;
    if !(1..=MOST_BODIES).contains(&close.bodies) {
        let error = format_args!("it is a number from 1 to {MOST_BODIES}");
        return Err(Refusal::field("bodies", error));
    }
    let conflict = |error: String| Refusal::new(StatusCode::CONFLICT, error);
    match admin.store().await?.close_job(id, close.bodies).await? {
        Closed::Whole { records } => {
            let job_id = id.to_string();
            Ok((StatusCode::ACCEPTED, Json(Handed { job_id, records })))
        }
        Closed::Missing(body) => Err(conflict(format!("body {body} isn't there yet"))),
        Closed::Beyond(body) => Err(conflict(format!("body {body} is there as well"))),
    }
}

/// A job of a project that the caller reaches.
async fn job(admin: &Admin, caller: &Caller, id: &str) -> Result<i64, Refusal> {
    let id = number("id", id)?;
    project_of(admin.store().await?, caller, id).await?;
    Ok(id)
}
