//! Owns the one list of answers that every wire format passes, over real HTTP and through the one sender. Refuses to know
//! a format: what each provider says stands in its file beside this one, and a file that lacks an answer fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::registry::wire;
use super::{Answer, Connection, Failure, Provider, Purpose, Timeout};
use cronvec_nouns::space::{ProviderKind, SpaceSpec};

/// A provider's answers.
fn recorded(kind: ProviderKind) -> Option<&'static str> {
    Some(wire(kind)?.recorded())
}

/// What the sender must make of an answer to two inputs.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// Both vectors, each for its input.
    Both,
    /// The second vector alone; the first input has this fault.
    Second(&'static str),
    BadAnswer,
    Rejected,
    TooLong,
    Misconfigured,
    Unavailable,
    /// The same, and it says when it is back.
    BackIn(u64),
    /// After so many seconds, if it says so.
    RateLimited(Option<u64>),
}

use Outcome::{BackIn, BadAnswer, Both, Misconfigured, RateLimited, Rejected, Second, TooLong, Unavailable};

/// What each provider says in a way of its own.
const ANSWERS: [(&str, Outcome); 23] = [
    ("right", Both),
    ("right_in_another_order", Both),
    ("one_too_few", BadAnswer),
    ("one_too_many", BadAnswer),
    ("wrong_width", Misconfigured),
    ("not_a_number", Second("a vector that isn't finite")),
    ("infinite", Second("a vector that isn't finite")),
    ("zero", Second("a vector of zeros")),
    ("empty", Second("an empty vector")),
    ("all_zero", BadAnswer),
    ("error_with_200", BadAnswer),
    ("another_shape", BadAnswer),
    ("invalid_input", Rejected),
    ("too_long", TooLong),
    ("request_too_large", Rejected),
    ("bad_key", Misconfigured),
    ("forbidden", Misconfigured),
    ("no_such_model", Misconfigured),
    ("rate_limited", RateLimited(None)),
    ("rate_limited_in_its_own_way", RateLimited(Some(7))),
    ("quota_spent", Misconfigured),
    ("server_error", Unavailable),
    ("overloaded", Unavailable),
];

#[derive(Deserialize)]
struct Recorded {
    model: String,
    key_header: Option<(String, String)>,
    path: String,
    answers: BTreeMap<String, Said>,
}

#[derive(Clone, Deserialize)]
struct Said {
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    /// Why this provider can't answer so.
    cannot_happen: Option<String>,
}

fn ok() -> u16 {
    200
}

impl Said {
    fn body(&self) -> String {
        match &self.body {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        }
    }

    fn raw(&self) -> String {
        let more: String = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        whole(self.status, &more, &self.body())
    }

    fn with(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        with.headers.insert(name.to_owned(), value.to_owned());
        with
    }
}

fn whole(status: u16, headers: &str, body: &str) -> String {
    raw(status, headers, body, body.len())
}

/// An answer that says that it is so long.
fn raw(status: u16, headers: &str, body: &str, length: usize) -> String {
    format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
}

/// A server that gives this answer to whatever comes, and what came.
async fn server(answer: String) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                match socket.read(&mut buffer).await {
                    Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let _ = told.send(String::from_utf8(request).unwrap());
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Asks for two texts; gives what came of it, and what was asked.
async fn ask(kind: ProviderKind, recorded: &Recorded, answer: String) -> (Result<Answer, Failure>, Vec<String>) {
    let (address, mut asked) = server(answer).await;
    let spec = SpaceSpec {
        provider: kind,
        model: recorded.model.clone(),
        dimensions: 2,
        chunk_tokens: 512,
        chunk_overlap: 0,
        document_prefix: "document: ".to_owned(),
        query_prefix: "query: ".to_owned(),
    };
    let connection = Connection::Http {
        base_url: format!("http://{address}"),
        api_key: recorded.key_header.as_ref().map(|_| "the-key".to_owned()),
    };
    let provider = Provider::new(spec, connection).unwrap();
    let timeout = Timeout {
        limit: Duration::from_secs(20),
        ours: false,
    };
    let result = provider
        .embed(&["the first text", "the second text"], Purpose::Document, timeout)
        .await;
    let mut requests = Vec::new();
    while let Ok(request) = asked.try_recv() {
        requests.push(request);
    }
    (result, requests)
}

fn check(case: &str, outcome: Outcome, result: Result<Answer, Failure>) {
    let near = |vector: &[f32], expected: [f32; 2]| {
        vector.len() == 2 && vector.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6)
    };
    let holds = match (&result, outcome) {
        (Ok(answer), Both) => {
            matches!(answer.vectors.as_slice(), [Ok(one), Ok(two)] if near(one, [0.6, 0.8]) && near(two, [0.8, -0.6]))
        }
        (Ok(answer), Second(fault)) => {
            matches!(answer.vectors.as_slice(), [Err(said), Ok(two)] if said.message == fault && near(two, [0.8, -0.6]))
        }
        (Err(Failure::RateLimited { retry_after, .. }), RateLimited(seconds)) => {
            *retry_after == seconds.map(Duration::from_secs)
        }
        (Err(Failure::Unavailable { retry_after, .. }), BackIn(seconds)) => {
            *retry_after == Some(Duration::from_secs(seconds))
        }
        (Err(Failure::Unavailable { retry_after, .. }), Unavailable) => retry_after.is_none(),
        (Err(Failure::BadAnswer { .. }), BadAnswer)
        | (Err(Failure::Rejected { .. }), Rejected)
        | (Err(Failure::TooLong { .. }), TooLong)
        | (Err(Failure::Misconfigured { .. }), Misconfigured) => true,
        _ => false,
    };
    assert!(holds, "{case}: {outcome:?} expected, not {result:?}");
    if let Err(failure) = result {
        assert!(!failure.message().contains("the-key"), "{case}: {failure}");
    }
}

fn all() -> Vec<(ProviderKind, Recorded)> {
    ProviderKind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, serde_json::from_str(recorded(kind)?).unwrap())))
        .collect()
}

#[test]
fn every_provider_that_is_asked_over_http_has_its_answers_recorded_and_no_others() {
    for kind in ProviderKind::ALL {
        assert_eq!(wire(kind).is_some(), recorded(kind).is_some(), "{kind}");
    }
    for (kind, recorded) in all() {
        let names: Vec<&str> = recorded.answers.keys().map(String::as_str).collect();
        let mut wanted = ANSWERS.map(|(name, _)| name);
        wanted.sort_unstable();
        assert_eq!(names, wanted, "{kind}");
    }
}

#[tokio::test]
async fn what_a_provider_says_in_its_own_way_means_the_same_of_every_provider() {
    for (kind, recorded) in all() {
        for (name, outcome) in ANSWERS {
            let said = &recorded.answers[name];
            if said.cannot_happen.is_some() {
                continue;
            }
            let (result, _) = ask(kind, &recorded, said.raw()).await;
            check(&format!("{kind} {name}"), outcome, result);
        }
    }
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_means_the_same_of_every_provider() {
    for (kind, recorded) in all() {
        let said = |name: &str| &recorded.answers[name];
        let right = said("right").body();
        let limited = said("rate_limited");
        let date = limited
            .with("retry-after", "Wed, 21 Oct 2026 07:28:07 GMT")
            .with("date", "Wed, 21 Oct 2026 07:28:00 GMT");
        let cases = [
            (
                "Retry-After in seconds",
                limited.with("retry-after", "7").raw(),
                RateLimited(Some(7)),
            ),
            ("Retry-After as a date", date.raw(), RateLimited(Some(7))),
            (
                "Retry-After that is none",
                limited.with("retry-after", "-1").raw(),
                RateLimited(None),
            ),
            (
                "RateLimit-Reset",
                limited.with("ratelimit-reset", "7").raw(),
                RateLimited(Some(7)),
            ),
            ("cut JSON", whole(200, "", &right[..right.len() / 2]), BadAnswer),
            (
                "a cut body",
                raw(200, "", &right[..right.len() / 2], right.len()),
                Unavailable,
            ),
            ("no body", whole(200, "", ""), BadAnswer),
            (
                "a page",
                whole(200, "", "<!doctype html><title>Sign in</title>"),
                BadAnswer,
            ),
            (
                "a page with 502",
                whole(502, "", "<html>Bad gateway</html>"),
                Unavailable,
            ),
            (
                "back in a while",
                said("overloaded").with("retry-after", "7").raw(),
                BackIn(7),
            ),
            ("a time-out of its own", whole(408, "", ""), Unavailable),
            ("no balance", whole(402, "", ""), Misconfigured),
            (
                "bytes that are compressed",
                whole(200, "content-encoding: gzip\r\n", "\u{1f}\u{8}"),
                BadAnswer,
            ),
            ("no answer", String::new(), Unavailable),
        ];
        for (name, answer, outcome) in cases {
            let (result, _) = ask(kind, &recorded, answer).await;
            check(&format!("{kind}: {name}"), outcome, result);
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed_and_the_key_goes_nowhere_else() {
    for (kind, recorded) in all() {
        let (elsewhere, mut asked) = server(recorded.answers["right"].raw()).await;
        for status in [301, 302, 307, 308] {
            let headers = format!("location: http://{elsewhere}{}\r\n", recorded.path);
            let (result, _) = ask(kind, &recorded, whole(status, &headers, "")).await;
            check(&format!("{kind} {status}"), Misconfigured, result);
        }
        assert!(asked.try_recv().is_err(), "{kind}");
    }
}

#[tokio::test]
async fn every_provider_is_asked_once_at_its_path_with_its_key_and_both_texts_in_order() {
    for (kind, recorded) in all() {
        let (_, requests) = ask(kind, &recorded, recorded.answers["right"].raw()).await;
        let [request] = requests.as_slice() else {
            panic!("{kind}: {} requests", requests.len())
        };
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(
            head.starts_with(&format!("post {} http/1.1", recorded.path.to_ascii_lowercase())),
            "{kind}: {head}"
        );
        if let Some((name, value)) = &recorded.key_header {
            assert!(
                head.contains(&format!("{name}: {}", value.to_ascii_lowercase())),
                "{kind}: {head}"
            );
        }
        // An answer that is compressed couldn't be bounded by its length, and vectors don't compress.
        assert!(!head.contains("accept-encoding"), "{kind}: {head}");
        let (one, two) = (
            body.find("document: the first text"),
            body.find("document: the second text"),
        );
        assert!(one.is_some() && one < two, "{kind}: {body}");
        assert!(body.contains(&recorded.model), "{kind}: {body}");
    }
}

#[test]
fn every_provider_bounds_a_request_by_inputs_tokens_and_bytes() {
    for (kind, recorded) in all() {
        let spec = SpaceSpec {
            provider: kind,
            model: recorded.model,
            dimensions: 2,
            chunk_tokens: 512,
            chunk_overlap: 0,
            document_prefix: String::new(),
            query_prefix: String::new(),
        };
        let limits = wire(kind).unwrap().limits(&spec);
        assert!(
            limits.inputs <= 2_048 && limits.tokens <= 300_000 && limits.bytes <= 1 << 20,
            "{kind}: {limits:?}"
        );
        assert!(
            limits.window >= 512 && limits.tokens >= limits.window,
            "{kind}: {limits:?}"
        );
    }
}
