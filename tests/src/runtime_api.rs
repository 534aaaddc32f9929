//! Owns the side of AWS Lambda that a function's program sees: the runtime API, over real HTTP on loopback.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::background;
use crate::process::{self, Process};

/// Why an invocation has no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum FunctionError {
    /// The function answered with an error.
    Reported { kind: String, message: String },
    /// It ran into its time-out, and its process was killed.
    TimedOut,
    /// Its process ended meanwhile; what it said on standard error.
    Exited { stderr: String },
}

struct Invocation {
    id: String,
    event: Vec<u8>,
    deadline_ms: u128,
}

type Outcome = Result<Value, FunctionError>;

struct Shared {
    queue: AsyncMutex<mpsc::UnboundedReceiver<Invocation>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Outcome>>>,
    /// Why it could not start, until the next invocation asks.
    refusal: Mutex<Option<FunctionError>>,
    /// When it first asked for an invocation.
    ready: Mutex<Option<Instant>>,
    trace: Mutex<String>,
}

impl Shared {
    fn settle(&self, id: &str, outcome: Outcome) -> StatusCode {
        match self.waiting.lock().expect("waiting").remove(id) {
            Some(waiting) => {
                let _ = waiting.send(outcome);
                StatusCode::ACCEPTED
            }
            None => StatusCode::BAD_REQUEST,
        }
    }
}

/// One instance of a function: invoked once at a time, started again after its process has ended.
pub struct Runtime {
    program: PathBuf,
    environment: Vec<(String, String)>,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Invocation>,
    serving: JoinHandle<()>,
    process: Process,
    launched: Instant,
}

/// Where a function's program is: as `cargo lambda build` left it in the folder that `CRONVEC_FUNCTIONS` names, else as it is
/// built for the tests.
async fn program(name: &str) -> PathBuf {
    match std::env::var_os("CRONVEC_FUNCTIONS") {
        Some(folder) => PathBuf::from(folder).join(name).join("bootstrap"),
        None => process::program(name).await,
    }
}

impl Runtime {
    /// Starts a function's program of the workspace.
    pub async fn start(program: &str, environment: &[(&str, &str)]) -> Self {
        let (events, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queue: AsyncMutex::new(queue),
            waiting: Mutex::default(),
            refusal: Mutex::default(),
            ready: Mutex::default(),
            trace: Mutex::new("Root=1-00000000-000000000000000000000000;Sampled=0".to_owned()),
        });
        let router = router(shared.clone());
        let (address, serving) = background::handle()
            .spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("an address").to_string();
                let serving = tokio::spawn(async move {
                    let _ = axum::serve(listener, router).await;
                });
                (address, serving)
            })
            .await
            .expect("a runtime API");
        let mut variables: Vec<(String, String)> = [
            ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", program),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/test"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "test"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_REGION", "eu-central-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        variables.extend(
            environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let program = self::program(program).await;
        let launched = Instant::now();
        let process = launch(&program, &variables);
        Self {
            program,
            environment: variables,
            shared,
            events,
            serving,
            process,
            launched,
        }
    }

    /// How long the first process took from its start until it asked for an invocation; none before it did.
    pub fn init(&self) -> Option<Duration> {
        let ready = *self.shared.ready.lock().expect("ready");
        ready.map(|ready| ready - self.launched)
    }

    /// Invokes the function, which has `time_out` for it. Past that its process is killed, as Lambda does.
    pub async fn invoke(&mut self, event: Value, time_out: Duration) -> Outcome {
        if self.process.ended().is_some() {
            // A refusal of the process before this one is old news.
            self.shared.refusal.lock().expect("refusal").take();
            self.drain().await;
            self.process = launch(&self.program, &self.environment);
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        let (settle, settled) = oneshot::channel();
        self.shared.waiting.lock().expect("waiting").insert(id.clone(), settle);
        let event = serde_json::to_vec(&event).expect("an event");
        let deadline_ms = (now + time_out).as_millis();
        self.events
            .send(Invocation {
                id: id.clone(),
                event,
                deadline_ms,
            })
            .expect("a runtime API");
        let outcome = tokio::select! {
            settled = settled => settled.expect("an outcome"),
            () = tokio::time::sleep(time_out) => {
                self.process.kill().await;
                Err(FunctionError::TimedOut)
            }
            _ = self.process.wait() => {
                let refusal = self.shared.refusal.lock().expect("refusal").take();
                Err(refusal.unwrap_or_else(|| FunctionError::Exited { stderr: self.process.stderr() }))
            }
        };
        self.shared.waiting.lock().expect("waiting").remove(&id);
        outcome
    }

    /// The header about tracing that its invocations have from now on.
    pub fn trace(&self, header: &str) {
        header.clone_into(&mut self.shared.trace.lock().expect("trace"));
    }

    /// The instance's process: to freeze, to kill, to read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills the instance's process; all that it said, on both its outputs.
    pub async fn end(mut self) -> String {
        self.process.kill().await;
        let said = self.process.outcome().await;
        said.stdout + said.stderr.as_str()
    }

    /// Forgets invocations that a dead process never took.
    async fn drain(&self) {
        let mut queue = self.shared.queue.lock().await;
        while queue.try_recv().is_ok() {}
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn launch(program: &std::path::Path, environment: &[(String, String)]) -> Process {
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    Process::spawn_at(program, &[], &environment)
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

async fn next(State(shared): State<Arc<Shared>>) -> Response<Body> {
    shared.ready.lock().expect("ready").get_or_insert_with(Instant::now);
    // A killed process's poll is dropped with its connection, and lets go of the queue.
    let invocation = shared.queue.lock().await.recv().await;
    let Some(Invocation { id, event, deadline_ms }) = invocation else {
        return Response::builder()
            .status(StatusCode::GONE)
            .body(Body::empty())
            .expect("a response");
    };
    Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", id)
        .header("lambda-runtime-deadline-ms", deadline_ms.to_string())
        .header(
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:eu-central-1:123456789012:function:test",
        )
        .header("lambda-runtime-trace-id", shared.trace.lock().expect("trace").as_str())
        .body(Body::from(event))
        .expect("a response")
}

async fn response(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    let outcome = serde_json::from_slice(&body).map_err(|error| FunctionError::Reported {
        kind: "Runtime.MalformedResponse".into(),
        message: error.to_string(),
    });
    shared.settle(&id, outcome)
}

async fn error(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    shared.settle(&id, Err(reported(&body)))
}

async fn init_error(State(shared): State<Arc<Shared>>, body: Bytes) -> StatusCode {
    *shared.refusal.lock().expect("refusal") = Some(reported(&body));
    StatusCode::ACCEPTED
}

fn reported(body: &[u8]) -> FunctionError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    FunctionError::Reported {
        kind: field("errorType"),
        message: field("errorMessage"),
    }
}
