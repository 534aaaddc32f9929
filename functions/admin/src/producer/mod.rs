//! What applications call: records in, records out, search.

pub(crate) mod bodies;
pub(crate) mod ingest;
mod options;
mod pieces;
mod pile;
pub(crate) mod record;
pub(crate) mod search;
mod stored;

use cronvec_config::AppEnv;
use cronvec_nouns::token::Role;
use cronvec_pipeline::Served;
use cronvec_store::StoreError;

use crate::identity::Caller;
use crate::{Admin, Refusal};

/// Of a record beside its text: its id and metadata.
const BESIDES: usize = 1024 * 1024;

impl Admin {
    /// Bytes of a body with records. Where JSON escapes all that isn't ASCII, text has twice its size.
    fn largest_body(&self) -> usize {
        self.settings()
            .max_content_bytes
            .saturating_mul(2)
            .saturating_add(BESIDES)
    }

    /// Makes a project that somebody wants to write to. In production only an admin does that.
    pub(crate) async fn make_project(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        let settings = self.settings();
        if settings.app_env == AppEnv::Production && caller.role != Role::Admin {
            return Err(Refusal::not_found(format!("no project '{name}'; an admin creates it")));
        }
        let store = self.store().await?;
        let space = store.ensure_space(&settings.embedding.new_space).await?;
        store
            .ensure_project(name, space.id, settings.queue.lanes_per_project)
            .await?;
        caller
            .audit(store, "project", "project created", &[name.to_owned()], Some(name))
            .await;
        Ok(())
    }

    /// A space and the provider that asks for it, as long as this program can.
    async fn served(&self, space_id: i32) -> Result<Served, Refusal> {
        let spaces = self.store().await?.spaces().await?;
        let space = spaces.into_iter().find(|space| space.id == space_id);
        let space = space.ok_or_else(|| StoreError::Unreadable(format!("space {space_id}")))?;
        let provider = cronvec_pipeline::provider(&space.spec, &self.settings().embedding, self.secrets()).await;
        match provider {
            Ok(provider) => Ok(Served {
                space,
                provider: std::sync::Arc::new(provider),
            }),
            Err(unserved) => {
                tracing::error!(space.id = space_id, error = %unserved, "a space is not served here");
                Err(Refusal::unavailable(
                    "the project's provider isn't configured here; the log says why",
                ))
            }
        }
    }
}
