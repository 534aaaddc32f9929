//! The functions as AWS's own clients call them, with what the template's schedules send, while secrets are rotated.
//!
//! Two minutes of a tick a second: `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all -- lambda::invoked --nocapture`

use std::path::Path;

use cronvec_nouns::token::Role;
use cronvec_tests::conditions::eventually;
use cronvec_tests::folder::Folder;
use cronvec_tests::full_size;
use cronvec_tests::invoke_api::InvokeApi;
use cronvec_tests::process::Process;
use cronvec_tests::skipped;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::rotation::Rotating;
use super::{has, http_event};

/// A tick of both workers, so many times, not more often than asked; each with what its schedule has then.
const TICKS: &str = "
import boto3, json, sys, time
functions = boto3.client('lambda', endpoint_url=sys.argv[1])
schedules = boto3.client('scheduler')
for _ in range(int(sys.argv[2])):
    begun = time.monotonic()
    for worker in ('ingestion', 'vectorization'):
        event = schedules.get_schedule(GroupName='cronvec', Name=worker)['Target']['Input']
        answer = functions.invoke(FunctionName=worker, Payload=event.encode())
        report = json.loads(answer['Payload'].read())
        print(json.dumps({'failed': answer.get('FunctionError'), 'report': report}), flush=True)
    time.sleep(max(0, float(sys.argv[3]) - (time.monotonic() - begun)))
";

/// Where the programs are, or what isn't there.
fn find() -> Result<(), &'static str> {
    let works = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !works("python3", &["-c", "import boto3"]) {
        return Err("boto3 is not installed");
    }
    if works("aws", &["--version"]) {
        Ok(())
    } else {
        Err("the AWS CLI is not installed")
    }
}

#[tokio::test]
async fn the_main_job_is_done_by_calls_of_the_aws_cli_and_boto3_while_secrets_are_rotated() {
    if let Err(missing) = find() {
        return skipped(missing);
    }
    let Some(rotating) = Rotating::new().await else { return };
    let deployment = &rotating.deployment;
    let mut functions = Vec::new();
    for name in ["ingestion", "vectorization", "cleanup", "admin"] {
        functions.push((name, deployment.function(name).await.runtime));
    }
    let api = InvokeApi::of(functions).await;
    let environment = rotating.moto.environment();
    let mut environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    environment.push(("AWS_DEFAULT_REGION", "eu-central-1"));

    // A record by the HTTP event of a function URL, through the AWS CLI.
    let token = deployment.system.token("producer", Role::Producer, None).await;
    let mut event = http_event("POST", "/api/ingest", &[], Some(&format!("Bearer {token}")));
    let records: Vec<Value> = (0..40)
        .map(|n| json!({"id": format!("r{n}"), "content": format!("text {n}")}))
        .collect();
    event["headers"]["content-type"] = "application/json".into();
    event["body"] = json!({"project": PROJECT, "records": records}).to_string().into();
    let answer = aws(&api, &environment, "admin", &event).await;
    assert_eq!(answer["statusCode"], 202, "{answer}");
    // A worker, with the input that the template's schedule has.
    let report = aws(&api, &environment, "ingestion", &rotating.tick("ingestion").await).await;
    has(
        &report,
        json!({"success": true, "authorisedBy": "current", "records": 40}),
    );

    let (ticks, pause) = if full_size() { (120, "1") } else { (12, "0") };
    let ticks_and_pause = [ticks.to_string(), pause.to_owned()];
    let arguments = ["-c", TICKS, api.address(), &ticks_and_pause[0], &ticks_and_pause[1]];
    let mut ticking = Process::spawn_at(Path::new("python3"), &arguments, &environment);
    eventually("it ticks", || async { ticking.stdout().lines().count() > 3 }).await;
    let told = rotating.rotated(&["--yes", "--at-once"]).await;
    assert_eq!(told["rotated"], true);
    for n in 40..80 {
        deployment
            .system
            .put(PROJECT, &format!("r{n}"), &format!("text {n}"))
            .await;
    }
    assert!(ticking.wait().await.success(), "{}", ticking.stderr());
    let answers: Vec<Value> = ticking
        .stdout()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 2 * ticks);
    for answer in &answers {
        assert_eq!(answer["failed"], Value::Null, "{answer}");
        has(&answer["report"], json!({"success": true}));
    }
    let with = |bearer: &str| {
        answers
            .iter()
            .filter(|answer| answer["report"]["authorisedBy"] == bearer)
            .count()
    };
    println!(
        "{} ticks, {} of them by the current secret, none failed",
        answers.len(),
        with("current")
    );
    assert!(with("current") > 0 && with("current") + with("previous") == answers.len());
    let report = aws(
        &api,
        &environment,
        "vectorization",
        &rotating.tick("vectorization").await,
    )
    .await;
    has(&report, json!({"success": true, "authorisedBy": "current"}));
    deployment
        .system
        .assert_all_embedded_by_fake(PROJECT, super::WIDTH.into())
        .await;

    let reader = deployment.system.token("reader", Role::Reader, None).await;
    let mut event = http_event("POST", "/api/search", &[], Some(&format!("Bearer {reader}")));
    event["headers"]["content-type"] = "application/json".into();
    event["body"] = json!({"project": PROJECT, "query": "text 7", "limit": 1})
        .to_string()
        .into();
    let answer = aws(&api, &environment, "admin", &event).await;
    let found: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&answer["statusCode"], &found["results"][0]["id"]),
        (&json!(200), &json!("r7")),
        "{answer}"
    );
    api.end().await;
}

/// `aws lambda invoke`
async fn aws(api: &InvokeApi, environment: &[(&str, &str)], function: &str, event: &Value) -> Value {
    let folder = Folder::new();
    let (payload, out) = (
        folder.file("event.json", &event.to_string()),
        folder.file("answer.json", ""),
    );
    let payload = format!("fileb://{payload}");
    let arguments = [
        "lambda",
        "invoke",
        "--endpoint-url",
        api.address(),
        "--function-name",
        function,
        "--payload",
    ];
    let arguments: Vec<&str> = arguments.into_iter().chain([payload.as_str(), out.as_str()]).collect();
    let outcome = Process::spawn_at(Path::new("aws"), &arguments, environment)
        .outcome()
        .await;
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    assert!(!outcome.stdout.contains("FunctionError"), "{outcome:?}");
    serde_json::from_str(&std::fs::read_to_string(out).unwrap()).unwrap()
}
