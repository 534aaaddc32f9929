//! Records that are stored, and where the queue is switched off embedded, while their writer waits.

use std::time::Duration;

use cronvec_nouns::record::Record;
use cronvec_pipeline::now::{Pace, Records, embed_now};
use cronvec_store::StoreError;
use cronvec_store::records::{NewRecord, Put};

use crate::identity::Caller;
use crate::{Admin, Refusal};

/// All requests of a write together.
const REQUESTS: Duration = Duration::from_secs(12);
/// No tick takes its records for so long: its time, and that of its writes.
const HOLD: Duration = Duration::from_secs(25);

impl Admin {
    /// Whether a write embeds before it is answered.
    pub(super) fn embeds_at_once(&self) -> bool {
        let embedding = &self.settings().embedding;
        !embedding.queue_enabled && embedding.search_enabled
    }

    /// Stores a record, in a project that is made if need be and if the caller may.
    pub(super) async fn put(&self, caller: &Caller, record: &NewRecord<'_>) -> Result<Put, Refusal> {
        let hold = self.embeds_at_once().then_some(HOLD);
        let store = self.store().await?;
        match store.put_record(record, hold).await {
            Err(StoreError::NoProject(_)) => {
                self.make_project(caller, record.project).await?;
                Ok(store.put_record(record, hold).await?)
            }
            put => Ok(put?),
        }
    }

    /// Embeds what was just put; gives how many are complete. Whatever fails is left to the next tick: the write is done.
    pub(super) async fn embed(&self, put: &[(Put, &Record)]) -> u64 {
        let waiting: Vec<&(Put, &Record)> = put.iter().filter(|(put, _)| put.is_pending).collect();
        let Some((first, _)) = waiting.first() else { return 0 };
        let (project_id, space_id) = (first.project_id, first.live_space);
        // Of two records with one id the later one is there.
        let mut records: Vec<(String, String)> = Vec::new();
        for (_, record) in &waiting {
            records.retain(|(id, _)| *id != record.id);
            records.push((record.id.clone(), record.content.clone()));
        }
        let wanted = records.len() as u64;
        let ids: Vec<String> = records.iter().map(|(id, _)| id.clone()).collect();
        let embedded = match self.embed_records(project_id, space_id, records).await {
            Ok(embedded) => embedded,
            Err(error) => {
                tracing::warn!(error = ?error, "a synchronous write isn't embedded; a tick will");
                0
            }
        };
        if embedded < wanted {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let released = match self.store().await {
                Ok(store) => store.release_records(project_id, space_id, &ids).await,
                Err(error) => Err(error),
            };
            if let Err(error) = released {
                tracing::warn!(error = %error, "records that aren't embedded wait until their hold is over");
            }
        }
        embedded
    }

    async fn embed_records(&self, project_id: i32, space: i32, records: Vec<(String, String)>) -> Result<u64, Refusal> {
        let served = self.served(space).await?;
        let embedding = &self.settings().embedding;
        let pace = Pace {
            batch_size: embedding.batch_size,
            concurrent_requests: embedding.concurrent_requests,
            limit: REQUESTS,
        };
        let records = Records { project_id, records };
        Ok(embed_now(self.store().await?, &served, records, pace).await?)
    }
}
