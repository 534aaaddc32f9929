//! `POST /api/admin/pause` and `POST /api/admin/resume`: of a project, or of everything.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::identity::{Acts, Caller};
use crate::request::Body;
use crate::{Admin, Refusal};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WhichProject)]
pub(crate) struct Which {
    /// Without one all that the caller reaches.
    #[schema(example = "kb")]
    project: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SteeredProjects)]
pub(crate) struct Paused {
    success: bool,
    projects: Vec<String>,
    /// Of a resumption: lanes that an ended job held.
    #[serde(skip_serializing_if = "Option::is_none")]
    lanes_freed: Option<u64>,
}

/// Keeps workers from projects' jobs. What one holds has its slice; writes go on.
#[utoipa::path(post, path = "/api/admin/pause", tag = "projects", operation_id = "pause", request_body = Which,
    responses((status = 200, description = "The projects that are paused.", body = Paused),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn pause(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(which): Body<Which>,
) -> Result<Json<Paused>, Refusal> {
    set(&admin, &caller, which, true).await
}

/// Lets workers at projects' jobs again, also at lanes that an ended job holds.
#[utoipa::path(post, path = "/api/admin/resume", tag = "projects", operation_id = "resume", request_body = Which,
    responses((status = 200, description = "The projects that go on.", body = Paused),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn resume(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(which): Body<Which>,
) -> Result<Json<Paused>, Refusal> {
    set(&admin, &caller, which, false).await
}

async fn set(admin: &Admin, caller: &Caller, which: Which, paused: bool) -> Result<Json<Paused>, Refusal> {
    let store = admin.store().await?;
    let reach = caller.narrowed(which.project.as_deref())?;
    let chosen = match &which.project {
        Some(name) => vec![store.project(name).await?],
        None => {
            let mut all = store.projects().await?;
            all.retain(|project| !project.removing);
            all
        }
    };
    let mut projects = Vec::new();
    let mut freed = 0;
    for project in chosen.into_iter().filter(|project| reach.includes(&project.name)) {
        store.set_paused(&project.name, paused).await?;
        if !paused {
            freed += store.lift_holds(project.id).await?;
        }
        projects.push(project.name);
    }
    if !projects.is_empty() {
        let told = if paused { "projects stopped" } else { "projects started" };
        caller
            .audit(store, "project", told, &projects, which.project.as_deref())
            .await;
    }
    Ok(Json(Paused {
        success: true,
        projects,
        lanes_freed: (!paused).then_some(freed),
    }))
}
