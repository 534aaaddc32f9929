//! Owns what becomes of a slice before anything is sent: chunks, those that are stored already, those whose text is
//! known. Refuses to send.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Tally;
use super::state::Shared;
use cronvec_nouns::chunk;
use cronvec_nouns::record::ContentHash;
use cronvec_provider::Provider;
use cronvec_store::StoreError;
use cronvec_store::charges::Charge;
use cronvec_store::pending::{PendingRecord, PendingText};
use cronvec_store::suspicions::Suspicion;
use cronvec_store::vectors::NewChunk;

/// A slice, sorted by what is to be done.
#[derive(Default)]
pub(super) struct Prepared {
    pub chunks: Vec<NewChunk>,
    pub gone: Vec<String>,
    pub faults: Vec<Charge>,
    /// Of records that a provider refused together with others, what is known of them.
    pub suspicions: HashMap<String, Suspicion>,
}

/// Splits the texts of a slice; leaves out the chunks that are stored already, unless a record lacks none: then one is
/// kept, so that a write shows the record. Records that somebody still holds are left out, too.
pub(super) async fn prepare(run: &Arc<Shared>, mut records: Vec<PendingRecord>) -> Result<Prepared, StoreError> {
    leave_held(run, &mut records).await?;
    let worker = Arc::clone(run);
    // Splitting is work for a processor: the requests' and writes' thread is left alone.
    let mut prepared = tokio::task::spawn_blocking(move || split_all(&worker, records))
        .await
        .map_err(|error| StoreError::Unreadable(format!("a text could not be split: {error}")))?;
    // Whatever has one chunk and was never worked on has nothing stored.
    let begun: HashMap<&str, ContentHash> = prepared
        .chunks
        .iter()
        .filter(|chunk| chunk.of > 1 || !chunk.is_new)
        .map(|chunk| (chunk.record_id.as_str(), chunk.record_hash))
        .collect();
    if begun.is_empty() {
        return Ok(prepared);
    }
    let begun: Vec<(&str, ContentHash)> = begun.into_iter().collect();
    let stored = run.invocation.store.stored_chunks(&run.job, &begun).await?;
    if stored.is_empty() {
        return Ok(prepared);
    }
    // What an earlier version of this program cut otherwise can't be completed by this one, nor what was stored before
    // one of its neighbours proved too long. What the record shows already needs no completing, however it was cut.
    let mut odd: HashMap<&str, ContentHash> = HashMap::new();
    let mut fitting: HashMap<&str, usize> = HashMap::new();
    let mut shown: HashMap<String, (i32, ContentHash)> = HashMap::new();
    for (id, set) in &stored {
        if let (true, Some(of), Some(first)) = (set.is_shown_whole(), set.shown, set.chunks.get(&0)) {
            shown.insert(id.clone(), (of, *first));
        }
    }
    for chunk in &prepared.chunks {
        if let Some(there) = stored
            .get(&chunk.record_id)
            .and_then(|set| set.chunks.get(&chunk.ordinal))
        {
            if *there == chunk.hash {
                *fitting.entry(&chunk.record_id).or_default() += 1;
            } else {
                odd.insert(&chunk.record_id, chunk.record_hash);
            }
        }
    }
    for (id, hash) in &begun {
        if stored
            .get(*id)
            .is_some_and(|set| set.chunks.len() > fitting.get(id).copied().unwrap_or(0))
        {
            odd.insert(id, *hash);
        }
    }
    odd.retain(|id, _| !shown.contains_key(*id));
    if !odd.is_empty() {
        let discarded: Vec<(&str, ContentHash)> = odd.iter().map(|(id, hash)| (*id, *hash)).collect();
        run.invocation.store.discard_chunks(&run.job, &discarded).await?;
    }
    let odd: HashSet<String> = odd.into_keys().map(str::to_owned).collect();
    for chunk in &mut prepared.chunks {
        chunk.is_new &= !stored.contains_key(&chunk.record_id);
        if let (Some((of, first)), 0) = (shown.get(&chunk.record_id), chunk.ordinal) {
            (chunk.of, chunk.hash) = (*of, *first);
        }
    }
    prepared.chunks.retain(|chunk| {
        odd.contains(&chunk.record_id)
            || stored.get(&chunk.record_id).is_none_or(|set| {
                if shown.contains_key(&chunk.record_id) {
                    return chunk.ordinal == 0;
                }
                let lacks_none = set.chunks.len() == usize::try_from(chunk.of).unwrap_or(usize::MAX);
                !set.chunks.contains_key(&chunk.ordinal) || (lacks_none && chunk.ordinal == 0)
            })
    });
    Ok(prepared)
}

/// A provider isn't paid for what can't be stored: records that were held before are looked at first.
async fn leave_held(run: &Shared, records: &mut Vec<PendingRecord>) -> Result<(), StoreError> {
    let was_held = |record: &PendingRecord| record.text.as_ref().is_some_and(|text| text.was_held);
    let noted: Vec<&str> = records.iter().filter(|r| was_held(r)).map(|r| r.id.as_str()).collect();
    if noted.is_empty() {
        return Ok(());
    }
    let held = run.invocation.store.still_held(&run.job, run.column, &noted).await?;
    Tally::add(&run.invocation.tally.passed_over, held.len() as u64);
    records.retain(|record| !held.contains(&record.id));
    Ok(())
}

fn split_all(run: &Shared, records: Vec<PendingRecord>) -> Prepared {
    let mut prepared = Prepared::default();
    for PendingRecord { id, text, attempts: _ } in records {
        let Some(PendingText {
            content,
            hash,
            cut_tokens,
            is_new,
            suspicion,
            was_held: _,
            since,
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
        if let Some(suspicion) = suspicion {
            prepared.suspicions.insert(id, suspicion);
        }
        prepared
            .chunks
            .extend(chunks.into_iter().map(|chunk| NewChunk { is_new, since, ..chunk }));
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
            is_cut_smaller: cut_tokens.is_some(),
            since: None,
        })
        .collect()
}
