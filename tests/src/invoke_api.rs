//! Owns the call that AWS's own clients make of a function, Lambda's Invoke, in front of instances. Refuses to check
//! signatures.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::background;
use crate::runtime_api::{FunctionError, Runtime};

/// As in the template.
const TIME_OUT: Duration = Duration::from_secs(60);

type Functions = Arc<HashMap<String, Mutex<Runtime>>>;

/// One instance of each function, which a second call waits for.
pub struct InvokeApi {
    address: String,
    functions: Functions,
    serving: JoinHandle<()>,
}

impl InvokeApi {
    pub async fn of(functions: impl IntoIterator<Item = (&str, Runtime)>) -> Self {
        let functions = functions
            .into_iter()
            .map(|(name, runtime)| (name.to_owned(), Mutex::new(runtime)));
        let functions: Functions = Arc::new(functions.collect());
        let router = Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .with_state(Arc::clone(&functions));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = background::handle().spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            functions,
            serving,
        }
    }

    /// For `--endpoint-url`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends all of them; what each said.
    pub async fn end(self) -> Vec<String> {
        self.serving.abort();
        let _ = self.serving.await;
        let functions = Arc::into_inner(self.functions).expect("nobody asks any more");
        let mut said = Vec::new();
        for runtime in functions.into_values() {
            said.push(runtime.into_inner().end().await);
        }
        said
    }
}

async fn invoke(State(functions): State<Functions>, Path(name): Path<String>, event: Bytes) -> Response {
    let Some(function) = functions.get(&name) else {
        return (StatusCode::NOT_FOUND, "no such function").into_response();
    };
    let Ok(event) = serde_json::from_slice(&event) else {
        return (StatusCode::BAD_REQUEST, "the event is no JSON").into_response();
    };
    match function.lock().await.invoke(event, TIME_OUT).await {
        Ok(answer) => answer.to_string().into_response(),
        Err(error) => {
            let (kind, message) = match error {
                FunctionError::Reported { kind, message } => (kind, message),
                other => ("Runtime".to_owned(), format!("{other:?}")),
            };
            let body = json!({"errorType": kind, "errorMessage": message}).to_string();
            ([("x-amz-function-error", "Unhandled")], body).into_response()
        }
    }
}
