//! What a long-lived process answers: `admin`'s paths, the workers' calls, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use admin::{Admin, Pace};
use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use cronvec_call::{self as call, CallError, Guard, WorkerCall};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::called::Called;
use super::prometheus;
use super::schedule::Workers;
use crate::app::App;

/// Of the API, beside those of the workers.
const CONNECTIONS: usize = 6;

#[derive(Clone)]
struct Served {
    workers: Arc<Workers>,
    called: Arc<Called>,
    guard: Arc<Guard>,
}

pub(super) fn router(app: &App, workers: Arc<Workers>, called: Arc<Called>, pace: Pace) -> Router {
    let served = Served {
        workers,
        called,
        guard: Arc::new(Guard::new(app.settings(), app.secrets().clone())),
    };
    let own = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/workers/{worker}", any(call_worker))
        .route("/api/process-embedding-queue", any(call_worker))
        .with_state(served);
    let settings = app.settings();
    let admin = Admin::in_process(settings.clone(), app.secrets().clone(), CONNECTIONS, pace);
    admin::protect(admin::router(admin).merge(own), settings.app_env)
}

/// Until it is told to stop; requests under way are answered first.
pub(super) async fn serve(listener: TcpListener, router: Router, mut stopping: watch::Receiver<bool>) -> Result<()> {
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        })
        .await
        .context("HTTP can't be served any more")
}

async fn metrics(State(served): State<Served>) -> Response {
    let text = prometheus::text(&served.workers).await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The same call as the function's, in the same shape: what the path, the bearer and the options say is read there.
async fn call_worker(State(served): State<Served>, request: Request) -> Response {
    let event = event(&request);
    let called = &served.called;
    let outcome = match WorkerCall::parse(&event).map(|call| call.worker()) {
        Err(error) => call::refuse(&event, error),
        Ok(None) => call::refuse(
            &event,
            CallError::NotFound {
                path: request.uri().path().to_owned(),
            },
        ),
        Ok(Some(kind)) => {
            let deadline = served.workers.deadline();
            // A pass has its time from when it begins, not from when it was called.
            call::answer(event, kind, &served.guard, deadline, |options, _| {
                called.call(kind, options)
            })
            .await
        }
    };
    match outcome {
        Ok(answer) => response(&answer),
        Err(error) => {
            tracing::error!(error = %error, "a call was left without an answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A request in payload format 2.0. Nothing of its body is read.
fn event(request: &Request) -> Value {
    let headers: Map<String, Value> = request
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), Value::from(value.to_str().ok()?))))
        .collect();
    let path = request.uri().path();
    json!({
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": request.uri().query().unwrap_or_default(),
        "headers": headers,
        "requestContext": {"http": {"method": request.method().as_str(), "path": path}},
    })
}

fn response(answer: &Value) -> Response {
    let status = answer["statusCode"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok());
    let status = status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = HeaderMap::new();
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = value.as_str().map(HeaderValue::from_str);
        if let (Ok(name), Some(Ok(value))) = (name, value) {
            headers.insert(name, value);
        }
    }
    let body = answer["body"].as_str().unwrap_or_default().to_owned();
    (status, headers, body).into_response()
}
