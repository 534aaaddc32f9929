//! What X-Ray's daemon is told of an invocation.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::Answer;
use cronvec_tests::system::record;
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::sync::Mutex;

use super::{Deployment, has};

const ROOT: &str = "1-67891233-abcdef012345678912345678";
const PARENT: &str = "53995c3f42cd8ad8";

/// A daemon that keeps what it is told.
struct Daemon {
    socket: UdpSocket,
    told: Mutex<Vec<Value>>,
}

impl Daemon {
    fn new() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let told = Mutex::default();
        Self { socket, told }
    }

    /// All of this name so far.
    fn told(&self, name: &str) -> Vec<Value> {
        let mut told = self.told.lock().unwrap();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            let (preamble, document) = text.split_once('\n').unwrap();
            let preamble: Value = serde_json::from_str(preamble).unwrap();
            assert_eq!(preamble, json!({"format": "json", "version": 1}));
            told.push(serde_json::from_str(document).unwrap());
        }
        told.iter()
            .filter(|document| document["name"] == name)
            .cloned()
            .collect()
    }
}

fn says(document: &Value, expected: Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&document[name], value, "{name} in {document}");
    }
}

#[tokio::test]
async fn jobs_and_requests_of_a_sampled_invocation_are_told_with_their_ids() {
    let daemon = Daemon::new();
    let mut deployment = Deployment::new().await;
    deployment.set(
        "AWS_XRAY_DAEMON_ADDRESS",
        daemon.socket.local_addr().unwrap().to_string(),
    );
    deployment.put(60).await;
    let mut function = deployment.function("vectorization").await;
    function
        .runtime
        .trace(&format!("Root={ROOT};Parent={PARENT};Sampled=1;Lineage=1:a:0"));
    has(&function.call().await, json!({"records": 60}));
    eventually("the job is told", || async { !daemon.told("job").is_empty() }).await;
    let job = &daemon.told("job")[0];
    let id = deployment
        .system
        .count("SELECT id FROM cronvec.job_queue WHERE job_type = 'VECTORIZE'")
        .await;
    says(
        job,
        json!({"type": "subsegment", "trace_id": ROOT, "parent_id": PARENT, "fault": false}),
    );
    assert_eq!(
        job["annotations"],
        json!({"job_id": id, "job_type": "VECTORIZE", "job_project": "articles"})
    );
    let requests = daemon.told("provider");
    assert_eq!(requests.len(), 3, "60 inputs, 25 at once");
    let mut inputs = 0;
    for request in &requests {
        says(
            request,
            json!({"trace_id": ROOT, "parent_id": job["id"], "fault": false}),
        );
        assert!(
            request["annotations"]["provider_endpoint"]
                .as_str()
                .unwrap()
                .starts_with("openai"),
            "{request}"
        );
        inputs += request["annotations"]["provider_inputs"].as_u64().unwrap();
        let (from, until) = (
            request["start_time"].as_f64().unwrap(),
            request["end_time"].as_f64().unwrap(),
        );
        assert!(
            job["start_time"].as_f64().unwrap() <= from && from <= until && until <= job["end_time"].as_f64().unwrap()
        );
    }
    assert_eq!(inputs, 60);

    // What fails is told as such; what isn't sampled isn't told.
    let told = daemon.told("provider").len();
    deployment
        .provider
        .answer_next(3, Answer::error(401, "invalid_api_key", "Incorrect API key"));
    deployment.system.put("articles", "r1", "another text").await;
    function.call().await;
    eventually("the failure is told", || async { daemon.told("provider").len() > told }).await;
    let failed = daemon.told("provider").pop().unwrap();
    says(&failed, json!({"fault": true, "metadata": {"error": "misconfigured"}}));
    let told = daemon.told("job").len();
    function
        .runtime
        .trace(&format!("Root={ROOT};Parent={PARENT};Sampled=0"));
    deployment.system.run_sql("DELETE FROM cronvec.provider_pauses").await;
    has(&function.call().await, json!({"success": true}));
    assert_eq!(daemon.told("job").len(), told);
    let said = function.end().await;
    let line = said.lines().find(|line| line.contains("the provider rests")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert!(
        line["spans"][0]["aws.trace_id"].as_str().unwrap().contains(ROOT),
        "{line}"
    );
    let last = daemon.told("job").pop().unwrap();
    assert_eq!(line["spans"][1]["job.id"], last["annotations"]["job_id"], "{line}");
    assert_eq!(line["message"], "the provider rests");

    // However quiet the log is.
    let mut function = deployment.set("RUST_LOG", "error").function("ingestion").await;
    function
        .runtime
        .trace(&format!("Root={ROOT};Parent={PARENT};Sampled=1"));
    deployment
        .system
        .enqueue("articles", &[record("r2", "a text")], EnqueueOptions::default())
        .await;
    has(&function.call().await, json!({"records": 1}));
    let of_ingestion = json!("INGEST_DATA");
    eventually("its job is told", || async {
        let jobs = daemon.told("job");
        jobs.iter().any(|job| job["annotations"]["job_type"] == of_ingestion)
    })
    .await;
    function.end().await;
}
