//! Owns moto's server, an emulation of AWS that others wrote, where it is installed (`pip install 'moto[server]'`).

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::conditions::eventually;
use crate::process::Process;

const REGION: &str = "eu-central-1";

/// A server of one's own, with secrets and schedules. It ends when dropped.
pub struct Moto {
    /// Killed with us.
    _process: Process,
    address: String,
    client: reqwest::Client,
}

impl Moto {
    /// None, said aloud, where it isn't installed.
    pub async fn start() -> Option<Self> {
        let Some(program) = find() else {
            crate::skipped("moto_server is not installed");
            return None;
        };
        let process = Process::spawn_at(&program, &["-H", "127.0.0.1", "-p", "0"], &[]);
        eventually("moto says where it is", || async { address(&process).is_some() }).await;
        Some(Self {
            address: address(&process).expect("an address"),
            _process: process,
            client: http_client(),
        })
    }

    /// What a program needs to ask it.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ENDPOINT_URL", self.address.clone()),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-EXAMPLEKEY".to_owned()),
        ]
    }

    /// Keeps a secret, and returns its ARN.
    pub async fn keep(&self, name: &str, value: &str) -> String {
        let kept = self
            .secrets("CreateSecret", json!({"Name": name, "SecretString": value}))
            .await;
        kept["ARN"].as_str().expect("an ARN").to_owned()
    }

    /// Writes another value by hand.
    pub async fn put(&self, arn: &str, value: &str) {
        self.secrets("PutSecretValue", json!({"SecretId": arn, "SecretString": value}))
            .await;
    }

    /// The value that is there now.
    pub async fn value(&self, arn: &str) -> String {
        let value = self.secrets("GetSecretValue", json!({"SecretId": arn})).await;
        value["SecretString"].as_str().expect("a value").to_owned()
    }

    /// Makes a group of schedules, as the template has them, with this input.
    pub async fn schedule(&self, group: &str, names: &[&str], input: &str) {
        self.call(
            "scheduler",
            "POST",
            &format!("/schedule-groups/{group}"),
            None,
            json!({}),
        )
        .await;
        for name in names {
            let schedule = json!({
                "GroupName": group, "Description": format!("A tick of {name}"), "ScheduleExpression": "rate(1 minute)",
                "ScheduleExpressionTimezone": "UTC", "State": "ENABLED", "FlexibleTimeWindow": {"Mode": "OFF"},
                "Target": {
                    "Arn": format!("arn:aws:lambda:{REGION}:123456789012:function:{name}"),
                    "RoleArn": "arn:aws:iam::123456789012:role/scheduler",
                    "Input": input,
                    "RetryPolicy": {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60},
                    "DeadLetterConfig": {"Arn": format!("arn:aws:sqs:{REGION}:123456789012:dead")},
                },
            });
            self.call("scheduler", "POST", &format!("/schedules/{name}"), None, schedule)
                .await;
        }
    }

    /// A schedule as it is now.
    pub async fn scheduled(&self, group: &str, name: &str) -> Value {
        let path = format!("/schedules/{name}?groupName={group}");
        self.call("scheduler", "GET", &path, None, json!({})).await
    }

    async fn secrets(&self, action: &str, body: Value) -> Value {
        let target = format!("secretsmanager.{action}");
        self.call("secretsmanager", "POST", "/", Some(target), body).await
    }

    /// It looks at nothing of a signature but the region and the service.
    async fn call(&self, service: &str, method: &str, path: &str, target: Option<String>, body: Value) -> Value {
        let method = method.parse().expect("a method");
        let scope = format!("Credential=AKIDEXAMPLE/20260101/{REGION}/{service}/aws4_request");
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.address))
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"),
            )
            .header("content-type", "application/x-amz-json-1.1");
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        let answer = request.body(body.to_string()).send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{service} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn http_client() -> reqwest::Client {
    cronvec_edges::tls::install();
    reqwest::Client::new()
}

fn address(process: &Process) -> Option<String> {
    let said = process.stderr() + process.stdout().as_str();
    let (_, rest) = said.split_once("Running on ")?;
    let (line, _) = rest.split_once('\n')?;
    Some(line.trim().to_owned())
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("moto_server"))
        .find(|program| program.exists())
}
