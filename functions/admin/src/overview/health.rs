//! `GET /api/admin/health`: what `cronvec health` looks at.

use axum::Json;
use axum::extract::State;
use cronvec_checks::{self as checks, Check, all_well};
use serde::Serialize;
use utoipa::ToSchema;

use crate::identity::Watches;
use crate::{Admin, Refusal};

#[derive(Serialize, ToSchema)]
#[schema(as = HealthChecks)]
pub(crate) struct Health {
    /// No check failed.
    healthy: bool,
    checks: Vec<Check>,
}

/// Whether all is well, check by check, each with its mend. Always a 200: `healthy` says so.
#[utoipa::path(get, path = "/api/admin/health", tag = "overview", operation_id = "health",
    responses((status = 200, description = "What was found.", body = Health)))]
pub(crate) async fn look(Watches(caller): Watches, State(admin): State<Admin>) -> Result<Json<Health>, Refusal> {
    let store = admin.store().await?;
    let (database, reachable) = checks::database(store).await;
    let mut found = vec![database];
    if reachable {
        let (schema, known) = checks::schema(store).await;
        found.push(schema);
        if known {
            found.extend(checks::queue(store, &caller.reach).await?);
        }
    }
    Ok(Json(Health {
        healthy: all_well(&found),
        checks: found,
    }))
}
