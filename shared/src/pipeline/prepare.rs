//! Owns what becomes of a slice before anything is sent: chunks, those that are stored already, those whose text is
//! known. Refuses to send.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::run::Shared;
use crate::chunk;
use crate::provider::Provider;
use crate::record::ContentHash;
use crate::store::StoreError;
use crate::store::charges::Charge;
use crate::store::pending::{PendingRecord, PendingText};
use crate::store::vectors::NewChunk;

/// A slice, sorted by what is to be done.
#[derive(Default)]
pub(super) struct Prepared {
    pub chunks: Vec<NewChunk>,
    pub gone: Vec<String>,
    pub faults: Vec<Charge>,
}

/// Splits the texts of a slice; leaves out the chunks that are stored already, unless a record lacks none: then one is
/// kept, so that a write shows the record.
pub(super) async fn prepare(run: &Arc<Shared>, records: Vec<PendingRecord>) -> Result<Prepared, StoreError> {
    let worker = Arc::clone(run);
    // Splitting is work for a processor: the requests' and writes' thread is left alone.
    let mut prepared = tokio::task::spawn_blocking(move || split_all(&worker, records))
        .await
        .map_err(|error| StoreError::Unreadable(format!("a text could not be split: {error}")))?;
    let large: HashMap<&str, ContentHash> = prepared
        .chunks
        .iter()
        .filter(|chunk| chunk.of > 1)
        .map(|chunk| (chunk.record_id.as_str(), chunk.record_hash))
        .collect();
    if large.is_empty() {
        return Ok(prepared);
    }
    let large: Vec<(&str, ContentHash)> = large.into_iter().collect();
    let stored = run.invocation.store.stored_chunks(&run.job, &large).await?;
    if stored.is_empty() {
        return Ok(prepared);
    }
    // What an earlier version of this program cut otherwise can't be completed by this one, nor what was stored before
    // one of its neighbours proved too long.
    let mut odd: HashMap<&str, ContentHash> = HashMap::new();
    let mut fitting: HashMap<&str, usize> = HashMap::new();
    for chunk in &prepared.chunks {
        if let Some(there) = stored.get(&chunk.record_id).and_then(|set| set.get(&chunk.ordinal)) {
            if *there == chunk.hash {
                *fitting.entry(&chunk.record_id).or_default() += 1;
            } else {
                odd.insert(&chunk.record_id, chunk.record_hash);
            }
        }
    }
    for (id, hash) in &large {
        if stored
            .get(*id)
            .is_some_and(|set| set.len() > fitting.get(id).copied().unwrap_or(0))
        {
            odd.insert(id, *hash);
        }
    }
    if !odd.is_empty() {
        let discarded: Vec<(&str, ContentHash)> = odd.iter().map(|(id, hash)| (*id, *hash)).collect();
        run.invocation.store.discard_chunks(&run.job, &discarded).await?;
    }
    let odd: HashSet<String> = odd.into_keys().map(str::to_owned).collect();
    for chunk in &mut prepared.chunks {
        chunk.is_new &= !stored.contains_key(&chunk.record_id);
    }
    prepared.chunks.retain(|chunk| {
        odd.contains(&chunk.record_id)
            || stored.get(&chunk.record_id).is_none_or(|set| {
                let lacks_none = set.len() == usize::try_from(chunk.of).unwrap_or(usize::MAX);
                !set.contains_key(&chunk.ordinal) || (lacks_none && chunk.ordinal == 0)
            })
    });
    Ok(prepared)
}

fn split_all(run: &Shared, records: Vec<PendingRecord>) -> Prepared {
    let mut prepared = Prepared::default();
    for PendingRecord { id, text, attempts: _ } in records {
        let Some(PendingText {
            content,
            hash,
            cut_tokens,
            is_new,
        }) = text
        else {
            prepared.gone.push(id);
            continue;
        };
        let chunks = split(&run.served.provider, &id, &content, hash, cut_tokens);
        if chunks.is_empty() {
            prepared.faults.push(Charge {
                record_id: id,
                record_hash: hash,
                reason: "no_text",
                message: "the text has nothing in it that could be embedded".into(),
                permanent: true,
            });
            continue;
        }
        prepared
            .chunks
            .extend(chunks.into_iter().map(|chunk| NewChunk { is_new, ..chunk }));
    }
    prepared
}

/// The chunks of a text, yet without vectors; of so many tokens where it must be cut smaller than the space says.
pub(super) fn split(
    provider: &Provider,
    record_id: &str,
    content: &str,
    record_hash: ContentHash,
    cut_tokens: Option<usize>,
) -> Vec<NewChunk> {
    let rules = provider.chunk_rules();
    let rules = cut_tokens.map_or(rules, |tokens| rules.at_most(tokens));
    let texts = chunk::split(content, rules, &|text| provider.count_tokens(text));
    let of = i32::try_from(texts.len()).unwrap_or(i32::MAX);
    (0..of)
        .zip(texts)
        .map(|(ordinal, text)| NewChunk {
            record_id: record_id.to_owned(),
            record_hash,
            of,
            ordinal,
            content: text.to_owned(),
            hash: ContentHash::of(text),
            vector: None,
            is_new: false,
        })
        .collect()
}
