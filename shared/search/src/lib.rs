//! Owns the way from a question to the records nearest to it. Refuses to know who asks, and how an answer is shown.

use std::time::Duration;

use cronvec_config::Embedding;
use cronvec_pipeline::{Unserved, provider};
use cronvec_provider::{Failure, Purpose, Timeout};
use cronvec_secrets::Secrets;
use cronvec_store::search::Hit;
use cronvec_store::{Store, StoreError};
use serde_json::Value;

/// Somebody waits for the answer.
const TIMEOUT: Timeout = Timeout {
    limit: Duration::from_secs(15),
    ours: false,
};

/// What is looked for, and where.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub project: &'a str,
    pub text: &'a str,
    /// So many records at most.
    pub limit: i32,
    /// Only records whose metadata contains this.
    pub filter: Option<&'a Value>,
    /// Whether it is left unasked while the provider's endpoint rests, as where many may ask.
    pub heeds_rests: bool,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This program can't embed what the project is searched with.
    #[error(transparent)]
    Unserved(#[from] Unserved),
    #[error("the provider that embeds questions {}", if *.circuit { "is shut off" } else { "rests" })]
    Resting { circuit: bool },
    /// The question itself is at fault.
    #[error("{0}")]
    Text(String),
    #[error("{failure}")]
    Provider { endpoint: String, failure: Failure },
    #[error("the provider gave no vector")]
    NoVector,
}

/// The records nearest to a question, in the space that is live when it is asked: the same one embeds and searches.
pub async fn search(
    store: &Store,
    settings: &Embedding,
    secrets: &Secrets,
    question: Question<'_>,
) -> Result<Vec<Hit>, SearchError> {
    let live = store.project(question.project).await?.live_space;
    let space = store.spaces().await?.into_iter().find(|space| space.id == live);
    let space = space.ok_or_else(|| StoreError::Unreadable(format!("space {live}")))?;
    let provider = provider(&space.spec, settings, secrets).await?;
    let endpoint = provider.endpoint();
    if question.heeds_rests
        && let Some(pause) = store.pauses(Some(&[endpoint])).await?.first()
    {
        return Err(SearchError::Resting { circuit: pause.circuit });
    }
    let asked = provider.embed(&[question.text], Purpose::Query, TIMEOUT).await;
    let vector = match asked.map(|mut answer| answer.vectors.pop()) {
        Ok(Some(Ok(vector))) => vector,
        Ok(Some(Err(fault))) => return Err(SearchError::Text(fault.to_string())),
        Ok(None) => return Err(SearchError::NoVector),
        Err(failure @ (Failure::TooLong { .. } | Failure::Rejected { .. })) => {
            return Err(SearchError::Text(failure.to_string()));
        }
        Err(failure) => {
            return Err(SearchError::Provider {
                endpoint: endpoint.to_owned(),
                failure,
            });
        }
    };
    let Question {
        project, limit, filter, ..
    } = question;
    Ok(store.search(project, live, &vector.into(), limit, filter).await?)
}
