//! Passes that are called over HTTP at `serve`, by callers who wait, who don't, and who go away.

use cronvec_tests::conditions::{LIMIT, assert_in_time, eventually};
use cronvec_tests::http;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use super::serve::{SECRET, Service, production};
use super::{DONE, whole};

const VECTORIZATION: &str = "/api/workers/vectorization";
/// Jobs that somebody holds, or that anybody was charged for.
const CHARGED: &str =
    "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING' OR attempts > 0 OR crashes > 0";
const PENDING: &str = "SELECT count(*) FROM cronvec.pending";

impl Service {
    /// Calls, and hangs up once this is so.
    async fn hang_up(&self, path: &str, when: impl Future<Output = ()>) {
        tokio::select! {
            answer = self.ask("POST", path, Some(SECRET)) => panic!("{answer:?}"),
            () = when => {}
        }
        // By then the process has heard of it.
        for _ in 0..10 {
            self.ask("GET", "/api/health", None).await;
        }
    }

    /// Calls for a project, without waiting for the pass.
    async fn call_without_waiting(&self, project: &str) -> Value {
        let path = format!("{VECTORIZATION}?wait=false&project={project}");
        let (status, body) = self.ask("POST", &path, Some(SECRET)).await;
        assert_eq!(status, 202, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn a_pass_outlives_the_caller_who_hangs_up_in_the_middle_of_it() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    system.put_many(PROJECT, 60, "text number").await;
    let service = Service::start(&production(&system, &provider), "--no-schedule").await;
    for path in [VECTORIZATION, "/api/process-embedding-queue"] {
        let gate = provider.hold();
        service.hang_up(path, provider.wait_open(3)).await;
        gate.release();
        eventually("all are embedded", || async { system.count(PENDING).await == 0 }).await;
        eventually("its job has ended", || async {
            let ended = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'COMPLETED' AND crashes = 0";
            system.count(ended).await > 0 && system.count(CHARGED).await == 0
        })
        .await;
        system.assert_all_embedded_by_fake(PROJECT, 16).await;
        system.put_many(PROJECT, 60, "another text").await;
    }
    eventually("both passes are counted", || async {
        service.metric("cronvec_passes_total{worker=\"vectorization\"}").await == 2.0
    })
    .await;
    assert_eq!(
        service
            .metric("cronvec_passes_failed_total{worker=\"vectorization\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn callers_who_wait_a_second_each_get_as_much_done_as_one_who_waits() {
    let provider = Provider::start().await;
    provider.set_latency(Duration::from_millis(300));
    let system = System::embedding_with(&provider, 16).await;
    system.put_many(PROJECT, 300, "text number").await;
    let cli = production(&system, &provider).with("EMBEDDING_CONCURRENT_REQUESTS", "1");
    let service = Service::start(&cli, "--no-schedule").await;
    let began = Instant::now();
    while system.count(PENDING).await > 0 {
        assert!(began.elapsed() < 2 * LIMIT, "they get nowhere");
        // As pg_net calls, with its time-out.
        let _ = http::client()
            .post(format!("{}{VECTORIZATION}", service.address))
            .bearer_auth(SECRET)
            .timeout(Duration::from_secs(1))
            .send()
            .await;
    }
    eventually("nothing is held", || async { system.count(CHARGED).await == 0 }).await;
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
    assert_eq!(provider.log().inputs(), 300, "nothing was asked for twice");
}

#[tokio::test]
async fn a_caller_who_does_not_wait_is_answered_at_once_and_passes_do_not_pile_up() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let projects = [PROJECT, "two", "three", "four", "five"];
    for project in projects {
        if project != PROJECT {
            system.create_project(project).await;
        }
        system
            .put_many(project, 20, &format!("text of {project}, number"))
            .await;
    }
    let service = Service::start(&production(&system, &provider), "--no-schedule").await;
    // Each pass works for one project, and has its one request open.
    let gate = provider.hold();
    for (nth, project) in projects[..4].iter().enumerate() {
        let answer = service.call_without_waiting(project).await;
        assert_eq!(
            (&answer["success"], &answer["accepted"], &answer["alreadyRunning"]),
            (&json!(true), &json!(true), &json!(false)),
            "{answer}"
        );
        provider.wait_open(nth + 1).await;
    }
    for _ in 0..3 {
        assert_eq!(service.call_without_waiting("five").await["alreadyRunning"], true);
    }
    // Who waits for a place, and goes away before there is one, leaves nothing behind.
    let patience = async {
        service.ask("GET", "/api/health", None).await;
    };
    service.hang_up(VECTORIZATION, patience).await;
    assert_eq!(*provider.open_requests().borrow(), 4);
    gate.release();
    eventually("they have ended", || async {
        service.metric("cronvec_passes_total{worker=\"vectorization\"}").await == 4.0
    })
    .await;
    service.call("POST", VECTORIZATION).await;
    assert_eq!(
        service.metric("cronvec_passes_total{worker=\"vectorization\"}").await,
        5.0
    );
    assert_eq!((system.count(PENDING).await, system.count(CHARGED).await), (0, 0));
    let (status, body) = service
        .ask("POST", &format!("{VECTORIZATION}?wait=never"), Some(SECRET))
        .await;
    assert_eq!(
        (status, body.contains("wait must be true or false")),
        (400, true),
        "{body}"
    );
}

#[tokio::test]
async fn a_called_pass_that_nobody_waits_for_parts_from_its_job_when_the_process_ends() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    system.put_many(PROJECT, 60, "text number").await;
    let gate = provider.hold();
    let service = Service::start(&production(&system, &provider), "--no-schedule").await;
    service.call_without_waiting(PROJECT).await;
    provider.wait_open(3).await;
    let begun = Instant::now();
    service.process.terminate();
    let outcome = whole(service.process).await;
    assert_in_time(begun, Duration::from_secs(10));
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    assert_eq!(system.count(CHARGED).await, 0);
    gate.release();
    assert_eq!(system.vectorize().await.records, 60);
}
