//! `GET` and `POST /api/admin/projects`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cronvec_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::identity::{Acts, Watches};
use crate::request::Body;
use crate::{Admin, Refusal};

/// A project and how it embeds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Project {
    #[schema(example = "kb")]
    name: String,
    paused: bool,
    /// It is being taken away: it takes no writes, and has no workers.
    removing: bool,
    /// VECTORIZE jobs of it that may run at once.
    lanes: i16,
    live_space: Option<Space>,
    /// The one that is being filled.
    next_space: Option<Space>,
}

#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Space {
    id: i32,
    #[schema(example = "openai")]
    provider: String,
    #[schema(example = "text-embedding-3-small")]
    model: String,
    #[schema(example = 1536)]
    dimensions: u16,
    chunk_tokens: u32,
    chunk_overlap: u32,
    document_prefix: String,
    query_prefix: String,
}

/// Every project and how it embeds.
#[utoipa::path(get, path = "/api/admin/projects", tag = "projects", operation_id = "projects",
    responses((status = 200, description = "By name.", body = Vec<Project>)))]
pub(crate) async fn list(Watches(caller): Watches, State(admin): State<Admin>) -> Result<Json<Vec<Project>>, Refusal> {
    let store = admin.store().await?;
    let spaces = store.spaces().await?;
    let find = |id: Option<i32>| {
        let space = spaces.iter().find(|space| Some(space.id) == id)?;
        Some(Space {
            id: space.id,
            provider: space.spec.provider.to_string(),
            model: space.spec.model.clone(),
            dimensions: space.spec.dimensions,
            chunk_tokens: space.spec.chunk_tokens,
            chunk_overlap: space.spec.chunk_overlap,
            document_prefix: space.spec.document_prefix.clone(),
            query_prefix: space.spec.query_prefix.clone(),
        })
    };
    let projects = store.projects().await?.into_iter();
    Ok(Json(
        projects
            .filter(|project| caller.reach.includes(&project.name))
            .map(|project| Project {
                live_space: find(Some(project.live_space)),
                next_space: find(project.next_space),
                name: project.name,
                paused: project.paused,
                removing: project.removing,
                lanes: project.lanes,
            })
            .collect(),
    ))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProject {
    #[schema(example = "kb", min_length = 1, max_length = 200)]
    name: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = MadeProject)]
pub(crate) struct Made {
    name: String,
    /// False: it was there already, and is as it was.
    created: bool,
}

/// A new project, in the space that the settings choose.
#[utoipa::path(post, path = "/api/admin/projects", tag = "projects", operation_id = "createProject",
    request_body = NewProject,
    responses((status = 201, description = "It is new.", body = Made),
        (status = 200, description = "It was there already.", body = Made)))]
pub(crate) async fn create(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(new): Body<NewProject>,
) -> Result<(StatusCode, Json<Made>), Refusal> {
    caller.project(&new.name)?;
    let created = match admin.store().await?.project(&new.name).await {
        Ok(_) => false,
        Err(StoreError::NoProject(_)) => {
            admin.make_project(&caller, &new.name).await?;
            true
        }
        Err(error) => return Err(error.into()),
    };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((
        status,
        Json(Made {
            name: new.name,
            created,
        }),
    ))
}
