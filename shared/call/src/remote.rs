//! Owns the call of a worker that runs elsewhere, over HTTP with its bearer. Refuses to judge what it answers.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::{CallOptions, WorkerKind};
use cronvec_config::check_base_url;

/// An answer is a report, not a page.
const ANSWER_BYTES: u64 = 1 << 20;

/// For calls of a deployment that bear a secret: only who has this address gets it.
pub fn client(base: &Url) -> Result<reqwest::Client, String> {
    let builder = cronvec_edges::http::client_for(base.host().as_ref());
    builder.build().map_err(|error| format!("no HTTP client: {error}"))
}

/// A deployment's workers, as they are reached from here.
pub struct Remote {
    client: reqwest::Client,
    base: Url,
    secret: Option<String>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.base.origin().ascii_serialization();
        f.debug_struct("Remote")
            .field("origin", &origin)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// At a deployment's address, or at the full one of a worker. The message says what is wrong with it.
    pub fn new(address: &str, secret: Option<String>) -> Result<Self, String> {
        // It bears the secret: no plain http to where anybody listens.
        check_base_url(address).map_err(|message| format!("the address {message}"))?;
        let base = Url::parse(address).map_err(|error| error.to_string())?;
        let client = client(&base)?;
        Ok(Self { client, base, secret })
    }

    /// One invocation; its report, or why there is none.
    pub async fn call(&self, worker: WorkerKind, options: &CallOptions, limit: Duration) -> Result<Value, String> {
        let mut request = self.client.post(self.address(worker, options)).timeout(limit);
        if let Some(secret) = &self.secret {
            request = request.bearer_auth(secret);
        }
        let response = request.send().await.map_err(|error| error.without_url().to_string())?;
        let status = response.status();
        if response.content_length().is_some_and(|length| length > ANSWER_BYTES) {
            return Err("its answer is too large for a report".to_owned());
        }
        let text = response.text().await.map_err(|error| error.without_url().to_string())?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() && answer["success"] == true {
            return Ok(answer);
        }
        let said = answer["error"].as_str().unwrap_or("no reason that could be read");
        Err(format!("it answered {}: {said}", status.as_u16()))
    }

    fn address(&self, worker: WorkerKind, options: &CallOptions) -> Url {
        let mut url = self.base.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        if !path.contains("/api/") {
            url.set_path(&format!("{path}/api/workers/{worker}"));
        }
        let mut query = url.query_pairs_mut();
        if let Some(project) = &options.project {
            query.append_pair("project", project);
        }
        if let Some(records) = options.max_records {
            query.append_pair("maxRecords", &records.to_string());
        }
        if let Some(seconds) = options.max_seconds {
            query.append_pair("maxSeconds", &seconds.to_string());
        }
        drop(query);
        url
    }
}
