//! `PUT`, `GET` and `DELETE` of `/api/projects/{project}/records/{id}`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use cronvec_nouns::record::{Record, check};
use cronvec_store::records::{NewRecord, RecordView};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::identity::{Reads, Writes};
use crate::request::{self, At, Kind};
use crate::{Admin, Refusal};

/// A record without its id, which stands in the path.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Text<'a> {
    #[schema(value_type = String, example = "Tomatoes like a deep drink in the morning.", min_length = 1)]
    content: String,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>, example = json!({"topic": "gardening"}))]
    metadata: Option<&'a RawValue>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Written {
    #[schema(example = "watering-tomatoes")]
    id: String,
    /// Its vectors are of this text. False: the next tick embeds it.
    embedded: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Deleted {
    id: String,
    /// False: there was no such record.
    deleted: bool,
}

/// Stores a record; wins over everything that was accepted before.
#[utoipa::path(put, path = "/api/projects/{project}/records/{id}", tag = "producer", operation_id = "putRecord",
    params(("project" = String, Path, example = "kb"),
        ("id" = String, Path, description = "Percent-encoded; it may have slashes.", example = "watering-tomatoes")),
    request_body = Text,
    responses((status = 200, description = "There was a record of this id.", body = Written),
        (status = 201, description = "It is new.", body = Written),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn put(
    Writes(caller): Writes,
    State(admin): State<Admin>,
    At((project, id)): At<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<Written>), Refusal> {
    caller.project(&project)?;
    if Kind::of(&request)? != Kind::Json {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is application/json",
        ));
    }
    let body = request::bytes(request, admin.largest_body()).await?;
    let text: Text<'_> = request::json(&body)?;
    let record = checked(&admin, id, text)?;
    let put = admin.put(&caller, &new(&project, &record)).await?;
    let embedded = put.is_embedded || (admin.embeds_at_once() && admin.embed(&[(put, &record)]).await == 1);
    let status = if put.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((
        status,
        Json(Written {
            id: record.id,
            embedded,
        }),
    ))
}

fn checked(admin: &Admin, id: String, text: Text<'_>) -> Result<Record, Refusal> {
    let metadata = match text.metadata.map(RawValue::get) {
        None | Some("null") => "{}",
        Some(object) => object,
    };
    serde_json::from_str::<Map<String, Value>>(metadata).map_err(|_| {
        Refusal::field(
            "metadata",
            "it is a JSON object with numbers and texts that can be stored",
        )
    })?;
    let most = admin.settings().max_content_bytes;
    if text.content.len() > most {
        return Err(Refusal::too_large(format!("content: it has more than {most} bytes")).with("field", "content"));
    }
    check(&id, &text.content, metadata, most).map_err(Refusal::bad_request)?;
    Ok(Record {
        id,
        content: text.content,
        metadata: metadata.to_owned(),
    })
}

pub(super) fn new<'a>(project: &'a str, record: &'a Record) -> NewRecord<'a> {
    NewRecord {
        project,
        id: &record.id,
        content: &record.content,
        metadata: &record.metadata,
    }
}

/// A record as it is stored.
#[utoipa::path(get, path = "/api/projects/{project}/records/{id}", tag = "producer", operation_id = "getRecord",
    params(("project" = String, Path, example = "kb"), ("id" = String, Path, example = "watering-tomatoes")),
    responses((status = 200, description = "The record.", body = RecordView),
        (status = 404, description = "No such project or record.", body = crate::openapi::Error)))]
pub(crate) async fn get(
    Reads(caller): Reads,
    State(admin): State<Admin>,
    At((project, id)): At<(String, String)>,
) -> Result<Json<RecordView>, Refusal> {
    caller.project(&project)?;
    let record = admin.store().await?.record(&project, &id).await?;
    record.map(Json).ok_or_else(|| Refusal::not_found("no such record"))
}

/// Deletes a record; no older job brings it back.
#[utoipa::path(delete, path = "/api/projects/{project}/records/{id}", tag = "producer", operation_id = "deleteRecord",
    params(("project" = String, Path, example = "kb"), ("id" = String, Path, example = "watering-tomatoes")),
    responses((status = 200, description = "It is gone.", body = Deleted),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn delete(
    Writes(caller): Writes,
    State(admin): State<Admin>,
    At((project, id)): At<(String, String)>,
) -> Result<Json<Deleted>, Refusal> {
    caller.project(&project)?;
    check(&id, "a text", "{}", usize::MAX).map_err(Refusal::bad_request)?;
    let deleted = admin.store().await?.delete_record(&project, &id).await?;
    Ok(Json(Deleted { id, deleted }))
}
