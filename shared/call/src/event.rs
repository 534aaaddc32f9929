//! Owns what an event says: which worker, on whose word, with which bounds. Refuses to believe it, see `guard`.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;
use url::form_urlencoded;

use super::CallError;

/// The three that are called by a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    Ingestion,
    Vectorization,
    Cleanup,
}

impl WorkerKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingestion, Self::Vectorization, Self::Cleanup];

    /// Its name in paths, logs and `cronvec.worker_status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingestion => "ingestion",
            Self::Vectorization => "vectorization",
            Self::Cleanup => "cleanup",
        }
    }

    fn at(path: &str) -> Option<(Self, &'static [&'static str], &'static str)> {
        if path == "/api/process-embedding-queue" {
            return Some((Self::Vectorization, &["POST"], "POST"));
        }
        let name = path.strip_prefix("/api/workers/")?;
        let worker = Self::ALL.into_iter().find(|worker| worker.as_str() == name)?;
        Some((worker, &["GET", "POST"], "GET, POST"))
    }
}

impl fmt::Display for WorkerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a call came, and how its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The input of a schedule or of `aws lambda invoke`.
    Direct,
    /// An HTTP request in payload format 2.0.
    Http,
}

impl Shape {
    /// Every HTTP event has a request context, a direct call has none.
    pub fn of(event: &Value) -> Self {
        let http = event.get("requestContext").is_some() || event.get("rawPath").is_some();
        if http { Self::Http } else { Self::Direct }
    }
}

/// What a caller may bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallOptions {
    /// Work for this project alone.
    pub project: Option<String>,
    /// Stop after so many records.
    pub max_records: Option<u64>,
    /// Stop after so many seconds.
    pub max_seconds: Option<f64>,
    /// `wait=false`: answer as soon as the pass is begun, where a process goes on after the answer.
    pub no_wait: bool,
}

impl CallOptions {
    /// The earlier of the invocation's end and the caller's.
    pub fn deadline(&self, invocation: Instant) -> Instant {
        let own = self
            .max_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .and_then(|time| Instant::now().checked_add(time));
        own.map_or(invocation, |own| own.min(invocation))
    }
}

/// An event, read. Its bearer is shown by nothing.
#[derive(Clone, PartialEq)]
pub struct WorkerCall {
    worker: Option<WorkerKind>,
    bearer: Option<String>,
    options: Result<CallOptions, CallError>,
    path: String,
}

impl fmt::Debug for WorkerCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerCall")
            .field("worker", &self.worker)
            .field("bearer", &self.bearer.as_ref().map(|_| "…"))
            .field("options", &self.options)
            .finish()
    }
}

impl WorkerCall {
    /// Reads either shape. Errors are an unknown path or method; wrong options are kept for after the bearer's check.
    pub fn parse(event: &Value) -> Result<Self, CallError> {
        match Shape::of(event) {
            Shape::Direct => Ok(Self {
                worker: None,
                bearer: event.get("authorization").and_then(Value::as_str).and_then(bearer),
                options: direct_options(event),
                path: String::new(),
            }),
            Shape::Http => Self::parse_http(event),
        }
    }

    fn parse_http(event: &Value) -> Result<Self, CallError> {
        let http = event.pointer("/requestContext/http");
        let method = http.and_then(|http| http.get("method")).and_then(Value::as_str);
        let path = event
            .get("rawPath")
            .or_else(|| http.and_then(|http| http.get("path")))
            .and_then(Value::as_str);
        let (Some(method), Some(path)) = (method, path) else {
            let message = "the event isn't in payload format 2.0: set PayloadFormatVersion to 2.0".to_owned();
            return Err(CallError::BadRequest { message });
        };
        let path = without_stage(event, path);
        let Some((worker, methods, allowed)) = WorkerKind::at(path) else {
            return Err(CallError::NotFound { path: path.to_owned() });
        };
        if !methods.contains(&method) {
            return Err(CallError::MethodNotAllowed {
                method: method.to_owned(),
                allowed,
            });
        }
        Ok(Self {
            worker: Some(worker),
            bearer: header(event, "authorization").and_then(bearer),
            options: query_options(event),
            path: path.to_owned(),
        })
    }

    /// A path that names another worker isn't one of this function's.
    pub(super) fn must_be_for(&self, kind: WorkerKind) -> Result<(), CallError> {
        match self.worker {
            Some(worker) if worker != kind => Err(CallError::NotFound {
                path: self.path.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Which worker the path names; a direct call names none.
    pub fn worker(&self) -> Option<WorkerKind> {
        self.worker
    }

    /// The secret that the call bears.
    pub fn bearer(&self) -> Option<&str> {
        self.bearer.as_deref()
    }

    /// The call's bounds, or what is wrong with them.
    pub fn options(&self) -> Result<CallOptions, CallError> {
        self.options.clone()
    }
}

/// A named stage of API Gateway stands before the path.
fn without_stage<'a>(event: &'a Value, path: &'a str) -> &'a str {
    let stage = event
        .pointer("/requestContext/stage")
        .and_then(Value::as_str)
        .unwrap_or("$default");
    let rest = path
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(stage))
        .filter(|rest| rest.starts_with('/'));
    let path = rest.unwrap_or(path);
    path.strip_suffix('/').unwrap_or(path)
}

fn header<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    let headers = event.get("headers")?.as_object()?;
    headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .and_then(|(_, value)| value.as_str())
}

/// `Bearer …`; the scheme in any case, as HTTP has it.
fn bearer(authorization: &str) -> Option<String> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn bad(name: &str, rule: &str) -> CallError {
    CallError::BadRequest {
        message: format!("{name} must be {rule}"),
    }
}

const PROJECT: &str = "a project's name";
const RECORDS: &str = "a whole number of at least 1";
const SECONDS: &str = "a number above 0";
const WAIT: &str = "true or false";

fn direct_options(event: &Value) -> Result<CallOptions, CallError> {
    let given = |name: &str| event.get(name).filter(|value| !value.is_null());
    let project = given("project").map(|value| value.as_str().map(str::to_owned).ok_or(bad("project", PROJECT)));
    let max_records = given("maxRecords").map(|value| value.as_u64().ok_or(bad("maxRecords", RECORDS)));
    let max_seconds = given("maxSeconds").map(|value| value.as_f64().ok_or(bad("maxSeconds", SECONDS)));
    let wait = given("wait").map(|value| value.as_bool().ok_or(bad("wait", WAIT)));
    checked(CallOptions {
        project: project.transpose()?,
        max_records: max_records.transpose()?,
        max_seconds: max_seconds.transpose()?,
        no_wait: wait.transpose()? == Some(false),
    })
}

fn query_options(event: &Value) -> Result<CallOptions, CallError> {
    let query = query(event);
    let given = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let max_records = given("maxRecords").map(|text| text.parse().map_err(|_| bad("maxRecords", RECORDS)));
    let max_seconds = given("maxSeconds").map(|text| text.parse().map_err(|_| bad("maxSeconds", SECONDS)));
    let wait = given("wait").map(|text| text.parse::<bool>().map_err(|_| bad("wait", WAIT)));
    checked(CallOptions {
        project: given("project"),
        max_records: max_records.transpose()?,
        max_seconds: max_seconds.transpose()?,
        no_wait: wait.transpose()? == Some(false),
    })
}

/// As the gateway decoded it, else as it was sent.
fn query(event: &Value) -> Vec<(String, String)> {
    if let Some(decoded) = event.get("queryStringParameters").and_then(Value::as_object) {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return decoded.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    }
    let raw = event.get("rawQueryString").and_then(Value::as_str).unwrap_or_default();
    form_urlencoded::parse(raw.as_bytes()).into_owned().collect()
}

fn checked(options: CallOptions) -> Result<CallOptions, CallError> {
    if options.project.as_deref().is_some_and(|name| name.trim().is_empty()) {
        return Err(bad("project", PROJECT));
    }
    if options.max_records == Some(0) {
        return Err(bad("maxRecords", RECORDS));
    }
    if options
        .max_seconds
        .is_some_and(|seconds| !seconds.is_finite() || seconds <= 0.0)
    {
        return Err(bad("maxSeconds", SECONDS));
    }
    Ok(options)
}
