//! Owns telling X-Ray's daemon of spans, in traces that Lambda samples. Refuses to wait for it.
//!
//! Documents and their way: "AWS X-Ray segment documents" and "Sending trace data to AWS X-Ray", X-Ray's developer guide.

use std::fmt;
use std::net::UdpSocket;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, registry::SpanRef};

const PREAMBLE: &str = "{\"format\": \"json\", \"version\": 1}\n";
/// The field of an invocation's span with what Lambda says of the trace, `Root=…;Parent=…;Sampled=1`.
const TRACE: &str = "aws.trace_id";
/// The field that says why a span's work failed.
const ERROR: &str = "error";

/// The spans that are told, and the one that they are within.
const SPANS: [&str; 3] = ["invocation", "job", "provider"];

pub(super) fn is_told(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && SPANS.contains(&metadata.name())
}

pub(super) struct XRay(UdpSocket);

/// What is told of one span.
#[derive(Clone)]
struct Segment {
    trace: String,
    parent: String,
    id: String,
    began: f64,
    /// The invocation has one of Lambda's own.
    is_lambdas: bool,
    fields: Map<String, Value>,
}

impl XRay {
    /// The daemon that `AWS_XRAY_DAEMON_ADDRESS` names, as Lambda does; `None` where there is none.
    pub fn from_env() -> Option<Self> {
        let address = std::env::var("AWS_XRAY_DAEMON_ADDRESS").ok()?;
        let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(address).ok()?;
        Some(Self(socket))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for XRay {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields(Map::new());
        attributes.record(&mut fields);
        let Some(segment) = Segment::of(fields.0, &span) else {
            return;
        };
        span.extensions_mut().insert(Mutex::new(segment));
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(segment) = span.extensions().get::<Mutex<Segment>>()
            && let Ok(mut segment) = segment.lock()
        {
            let mut fields = Fields(std::mem::take(&mut segment.fields));
            record.record(&mut fields);
            segment.fields = fields.0;
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let segment = span.extensions_mut().remove::<Mutex<Segment>>();
        let Some(Ok(segment)) = segment.map(Mutex::into_inner) else {
            return;
        };
        if segment.is_lambdas {
            return;
        }
        let document = format!("{PREAMBLE}{}", segment.document(span.name()));
        // Lost where the daemon isn't there or doesn't keep up: a trace is worth no wait.
        let _ = self.0.send(document.as_bytes());
    }
}

impl Segment {
    /// Of a span in a trace that is sampled.
    fn of<'a, S: LookupSpan<'a>>(mut fields: Map<String, Value>, span: &SpanRef<'a, S>) -> Option<Self> {
        let began = now();
        if let Some(Value::String(header)) = fields.remove(TRACE) {
            let part = |name: &str| {
                header
                    .split(';')
                    .find_map(|part| part.strip_prefix(name))
                    .map(str::to_owned)
            };
            return (part("Sampled=")? == "1").then_some(Self {
                trace: part("Root=")?,
                parent: String::new(),
                id: part("Parent=")?,
                began,
                is_lambdas: true,
                fields,
            });
        }
        let above = span.parent()?;
        let extensions = above.extensions();
        let above = extensions.get::<Mutex<Self>>()?.lock().ok()?;
        Some(Self {
            trace: above.trace.clone(),
            parent: above.id.clone(),
            id: format!("{:016x}", rand::random::<u64>()),
            began,
            is_lambdas: false,
            fields,
        })
    }

    fn document(mut self, name: &str) -> Value {
        let error = self.fields.remove(ERROR);
        let mut document = json!({
            "type": "subsegment", "name": name, "id": self.id, "trace_id": self.trace, "parent_id": self.parent,
            "start_time": self.began, "end_time": now(), "fault": error.is_some(), "annotations": self.fields,
        });
        if let Some(error) = error {
            document["metadata"] = json!({"error": error});
        }
        document
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Annotations are searched for; their names have no dots.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = match field.name() {
            name @ (TRACE | ERROR) => name.to_owned(),
            name => name.replace('.', "_"),
        };
        self.0.insert(name, value.into());
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
