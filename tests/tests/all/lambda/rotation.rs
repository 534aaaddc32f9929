//! The workers' secret is rotated by the command, beside functions that run: moto's Secrets Manager and Scheduler.

use cronvec_tests::conditions::eventually;
use cronvec_tests::moto::Moto;
use cronvec_tests::process::{Outcome, Process};
use serde_json::{Value, json};

use super::{Deployment, has};

pub(super) const GROUP: &str = "cronvec";
const WORKERS: [&str; 3] = ["ingestion", "vectorization", "cleanup"];

/// A deployment whose secrets and schedules are moto's.
pub(super) struct Rotating {
    pub moto: Moto,
    pub deployment: Deployment,
    current: String,
    previous: String,
}

impl Rotating {
    pub async fn new() -> Option<Self> {
        let moto = Moto::start().await?;
        let mut deployment = Deployment::new().await;
        let current = moto.keep("current", "FirstSecretOfThisDeployment").await;
        let previous = moto.keep("previous", "NobodyKnowsThisOne").await;
        moto.schedule(GROUP, &WORKERS, &input_of_template("FirstSecretOfThisDeployment"))
            .await;
        deployment
            .unset("CRON_SECRET")
            .set("CRON_SECRET_ARN", &current)
            .set("CRON_SECRET_PREVIOUS_ARN", &previous);
        for (name, value) in moto.environment() {
            deployment.set(name, value);
        }
        Some(Self {
            moto,
            deployment,
            current,
            previous,
        })
    }

    /// What a schedule sends now.
    pub async fn tick(&self, worker: &str) -> Value {
        let schedule = self.moto.scheduled(GROUP, worker).await;
        serde_json::from_str(schedule["Target"]["Input"].as_str().unwrap()).unwrap()
    }

    async fn start(&self, options: &[&str]) -> Process {
        let mut arguments = vec![
            "rotate-secret",
            "--json",
            "--secret",
            &self.current,
            "--previous",
            &self.previous,
        ];
        arguments.extend(["--schedules", GROUP]);
        arguments.extend(options);
        let environment = self.moto.environment();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Process::spawn("cronvec", &arguments, &environment).await
    }

    async fn rotate(&self, options: &[&str]) -> Outcome {
        let outcome = self.start(options).await.outcome().await;
        for arn in [&self.current, &self.previous] {
            let value = self.moto.value(arn).await;
            assert!(
                !format!("{outcome:?}").contains(&value),
                "a secret was told: {outcome:?}"
            );
        }
        outcome
    }

    pub async fn rotated(&self, options: &[&str]) -> Value {
        let outcome = self.rotate(options).await;
        assert_eq!(outcome.code(), Some(0), "{outcome:?}");
        serde_json::from_str(&outcome.stdout).unwrap()
    }
}

/// The input of a schedule in the template, with this in the place of the reference.
fn input_of_template(secret: &str) -> String {
    let template = include_str!("../../../../template.yaml");
    let mut inputs = template
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Input: !Sub '"));
    let first = inputs.next().expect("an input");
    assert!(inputs.all(|input| input == first), "all schedules send the same");
    let input = first.strip_suffix('\'').expect("a quote");
    let reference = "{{resolve:secretsmanager:${CronSecret}:SecretString}}";
    assert!(input.contains(reference), "{input}");
    input.replace(reference, secret)
}

#[tokio::test]
async fn a_rotation_works_twice_in_a_row_and_no_tick_is_refused() {
    let Some(rotating) = Rotating::new().await else { return };
    for (round, worker) in ["vectorization", "ingestion"].into_iter().enumerate() {
        let mut function = rotating.deployment.function(worker).await;
        let before = rotating.tick(worker).await;
        has(
            &function.invoke(before.clone()).await.unwrap(),
            json!({"authorisedBy": "current"}),
        );
        let told = rotating.rotated(&["--yes", "--at-once"]).await;
        assert_eq!(
            (&told["rotated"], told["schedules"].as_array().unwrap().len()),
            (&json!(true), 3),
            "{told}"
        );
        let after = rotating.tick(worker).await;
        assert_ne!(before, after, "round {round}");
        let secret = after["authorization"]
            .as_str()
            .unwrap()
            .strip_prefix("Bearer ")
            .unwrap();
        assert!(secret.len() == 48 && secret.chars().all(|sign| sign.is_ascii_alphanumeric()));
        // One that was on its way, at the instance that runs; the new one, there and at another.
        has(
            &function.invoke(before.clone()).await.unwrap(),
            json!({"success": true}),
        );
        has(
            &function.invoke(after.clone()).await.unwrap(),
            json!({"authorisedBy": "current"}),
        );
        has(
            &function.invoke(before.clone()).await.unwrap(),
            json!({"authorisedBy": "previous"}),
        );
        let mut fresh = rotating.deployment.function(worker).await;
        has(
            &fresh.invoke(before).await.unwrap(),
            json!({"authorisedBy": "previous"}),
        );
        has(&fresh.invoke(after).await.unwrap(), json!({"authorisedBy": "current"}));
        function.end().await;
        fresh.end().await;
    }
    let mut function = rotating.deployment.function("cleanup").await;
    let first: Value = serde_json::from_str(&input_of_template("FirstSecretOfThisDeployment")).unwrap();
    assert!(
        function.invoke(first).await.is_err(),
        "two rotations later it is good no more"
    );
    function.end().await;
}

#[tokio::test]
async fn a_rotation_that_broke_off_is_finished_by_the_same_command_and_nothing_else_of_a_schedule_changes() {
    let Some(rotating) = Rotating::new().await else { return };
    let before = rotating.moto.scheduled(GROUP, "vectorization").await;
    let first = rotating.moto.value(&rotating.current).await;
    rotating.moto.put(&rotating.previous, &first).await;
    rotating
        .moto
        .put(&rotating.current, "SecretOfARotationThatBrokeOff")
        .await;
    let told = rotating.rotated(&["--yes"]).await;
    assert_eq!(
        told,
        json!({"success": true, "rotated": false, "schedules": told["schedules"]})
    );
    assert_eq!(told["schedules"].as_array().unwrap().len(), 3);
    assert_eq!(
        rotating.moto.value(&rotating.current).await,
        "SecretOfARotationThatBrokeOff"
    );
    let mut after = rotating.moto.scheduled(GROUP, "vectorization").await;
    let input = after["Target"]["Input"].as_str().unwrap();
    let input: Value = serde_json::from_str(input).unwrap();
    assert_eq!(input, json!({"authorization": "Bearer SecretOfARotationThatBrokeOff"}));
    after["Target"]["Input"] = before["Target"]["Input"].clone();
    after["LastModificationDate"] = before["LastModificationDate"].clone();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_second_rotation_waits_for_what_is_on_its_way_and_can_be_ended_before_it_changed_anything() {
    let Some(rotating) = Rotating::new().await else { return };
    rotating.rotated(&["--yes", "--at-once"]).await;
    let values = [&rotating.current, &rotating.previous].map(|arn| rotating.moto.value(arn));
    let values = futures::future::join_all(values).await;
    let mut process = rotating.start(&["--yes"]).await;
    eventually("it waits", || async { process.stderr().contains("waiting") }).await;
    process.interrupt();
    assert_eq!(process.outcome().await.code(), Some(130));
    for (arn, value) in [&rotating.current, &rotating.previous].into_iter().zip(values) {
        assert_eq!(rotating.moto.value(arn).await, value);
    }
}

#[tokio::test]
async fn it_asks_and_says_what_is_missing() {
    let Some(rotating) = Rotating::new().await else { return };
    let first = rotating.moto.value(&rotating.current).await;
    assert_eq!(rotating.rotate(&[]).await.code(), Some(2));
    let wrong = rotating.rotate(&["--yes", "--at-once", "--schedules", "another"]).await;
    assert_eq!(wrong.code(), Some(2), "an option twice is wrong usage: {wrong:?}");
    let arguments = [
        "rotate-secret",
        "--yes",
        "--secret",
        "cron",
        "--previous",
        "cron",
        "--schedules",
        GROUP,
    ];
    let outcome = Process::spawn("cronvec", &arguments, &[]).await.outcome().await;
    assert_eq!(outcome.code(), Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("cron is no ARN of a secret"), "{outcome:?}");
    assert_eq!(rotating.moto.value(&rotating.current).await, first);
}
