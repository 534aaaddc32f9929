//! `reset-stuck`

use anyhow::Result;
use serde_json::json;

use super::ready;
use crate::Context;
use crate::exit::Ended;
use crate::filters::Scope;

pub(crate) async fn run(scope: Scope, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let filter = scope.checked(&app).await?;
    let ids: Vec<String> = app
        .store()
        .reset_stuck(&filter)
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    if !ids.is_empty() {
        app.audit("queue", "jobs without a worker put back", &ids, None).await;
    }
    context.output.show(
        &json!({"success": true, "reset": ids.len(), "jobIds": ids}),
        || match ids.len() {
            0 => "no job had lost its worker".to_owned(),
            _ => format!("back in the queue: {}", ids.join(", ")),
        },
    )?;
    Ok(Ended::Well)
}
