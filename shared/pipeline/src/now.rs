//! Owns the synchronous write: a few records are embedded while their writer waits, without a job. The same chunks, the
//! same requests, the same write with its fence on the content hash. Refuses to judge who is at fault: what isn't embedded
//! stays pending, and a tick finds out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::batch::Packer;
use super::verdict::{Verdict, verdict};
use super::writer::CHUNKS_PER_WRITE;
use super::{Served, prepare};
use cronvec_nouns::record::ContentHash;
use cronvec_provider::{Purpose, Timeout};
use cronvec_store::chunks::Known;
use cronvec_store::vectors::NewChunk;
use cronvec_store::{Store, StoreError};

/// Records of one project, just written.
pub struct Records {
    pub project_id: i32,
    /// Each with its text.
    pub records: Vec<(String, String)>,
}

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub batch_size: usize,
    pub concurrent_requests: usize,
    /// All of the requests together.
    pub limit: Duration,
}

/// Embeds what it can in the time there is. Gives how many records are complete.
pub async fn embed_now(store: &Store, served: &Served, records: Records, pace: Pace) -> Result<u64, StoreError> {
    let until = Instant::now() + pace.limit;
    let endpoint = served.provider.endpoint();
    if !store.pauses(Some(&[endpoint])).await?.is_empty() {
        return Ok(0);
    }
    let project_id = records.project_id;
    let space_id = served.space.id;
    let mut records = records.records;
    let named: Vec<(&str, ContentHash)> = records
        .iter()
        .map(|(id, text)| (id.as_str(), ContentHash::of(text)))
        .collect();
    let begun = store.begun_records(project_id, space_id, &named).await?;
    records.retain(|(id, _)| !begun.contains(id));
    let mut chunks = split(served, records).await?;
    let hashes: Vec<ContentHash> = chunks.iter().map(|chunk| chunk.hash).collect();
    let space_use = store.space_use(project_id, space_id).await?;
    let known = store.known_texts(space_id, &hashes, space_use.has_left).await?;
    // Each text once.
    let mut wanted: HashMap<ContentHash, String> = HashMap::new();
    for chunk in chunks.iter().filter(|chunk| !known.contains_key(&chunk.hash)) {
        wanted.entry(chunk.hash).or_insert_with(|| chunk.content.clone());
    }
    let mut packer = Packer::new(served.provider.limits(), pace.batch_size);
    let mut batches = Vec::new();
    for (hash, text) in wanted {
        let size = served.provider.size_in_request(&text);
        batches.extend(packer.push((hash, text), size));
    }
    batches.extend(packer.flush());
    let answers: Vec<_> = futures::stream::iter(batches.into_iter().map(|batch| ask(store, served, batch, until)))
        .buffer_unordered(pace.concurrent_requests)
        .collect()
        .await;
    let mut vectors: HashMap<ContentHash, Arc<Vec<f32>>> = answers.into_iter().flatten().collect();
    let known: HashSet<ContentHash> = (known.into_iter())
        .filter_map(|(hash, text)| match text {
            Known::Stored => Some(hash),
            Known::Left(vector) => {
                vectors.insert(hash, Arc::new(vector));
                None
            }
        })
        .collect();
    for chunk in &mut chunks {
        chunk.vector = vectors.get(&chunk.hash).cloned();
    }
    chunks.retain(|chunk| chunk.vector.is_some() || known.contains(&chunk.hash));
    let connection = store.connection().await?;
    let mut complete = 0;
    for some in chunks.chunks(CHUNKS_PER_WRITE) {
        complete += store
            .write_chunks_now(&connection, project_id, space_id, space_use.column, some)
            .await?
            .complete;
    }
    Ok(complete)
}

/// The vectors that one request brings; none when it fails.
async fn ask(
    store: &Store,
    served: &Served,
    batch: Vec<(ContentHash, String)>,
    until: Instant,
) -> Vec<(ContentHash, Arc<Vec<f32>>)> {
    let texts: Vec<&str> = batch.iter().map(|(_, text)| text.as_str()).collect();
    let timeout = Timeout {
        limit: until.saturating_duration_since(Instant::now()),
        ours: true,
    };
    let failure = match served.provider.embed(&texts, Purpose::Document, timeout).await {
        Ok(answer) => {
            let answered = batch.iter().zip(answer.vectors);
            return answered
                .filter_map(|((hash, _), vector)| Some((*hash, Arc::new(vector.ok()?))))
                .collect();
        }
        Err(failure) => failure,
    };
    let endpoint = served.provider.endpoint();
    tracing::warn!(provider.endpoint = endpoint, error = %failure, "a synchronous write isn't embedded; a tick will");
    let paused = match verdict(failure) {
        Verdict::Pause { rest, message } => store.pause_endpoint(endpoint, rest, false, &message).await,
        Verdict::OpenCircuit { rest, message } => store.pause_endpoint(endpoint, rest, true, &message).await,
        Verdict::RetryOnce { .. } | Verdict::Suspect { .. } | Verdict::TooSlow { .. } | Verdict::OutOfTime => Ok(()),
    };
    if let Err(error) = paused {
        tracing::error!(error = %error, provider.endpoint = endpoint, "the pause could not be written");
    }
    Vec::new()
}

/// Splitting is work for a processor: other requests' thread is left alone.
async fn split(served: &Served, records: Vec<(String, String)>) -> Result<Vec<NewChunk>, StoreError> {
    let provider = Arc::clone(&served.provider);
    let split = move || {
        let of_each = records
            .iter()
            .map(|(id, text)| prepare::split(&provider, id, text, ContentHash::of(text), None));
        of_each.flatten().collect()
    };
    tokio::task::spawn_blocking(split)
        .await
        .map_err(|error| StoreError::Unreadable(format!("a text could not be split: {error}")))
}
