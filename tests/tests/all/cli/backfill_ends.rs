//! Backfills that end before their end: stopped, interrupted, killed, taken back; and how they are gone on with.

use cronvec_tests::conditions::{assert_in_time, eventually};
use cronvec_tests::process::Process;
use cronvec_tests::system::PROJECT;
use serde_json::json;
use std::time::{Duration, Instant};

use super::backfill::{EMBEDDED, summary, unasked};
use super::{DONE, INTERRUPTED, USAGE, objects, whole};

async fn stops_at(signal: impl Fn(&Process)) {
    let (provider, system, cli) = unasked(300).await;
    let gate = provider.hold();
    let backfill = cli.start("backfill --yes --json").await;
    provider.wait_open(4).await;
    gate.pass(4);
    eventually("the first batches are stored", || async {
        system.count(EMBEDDED).await == 100
    })
    .await;
    provider.wait_open(4).await;
    let begun = Instant::now();
    signal(&backfill);
    let outcome = whole(backfill).await;
    // Two seconds for the answers that are under way, which don't come; and what ending a process takes.
    assert_in_time(begun, Duration::from_millis(2500));
    assert_eq!(outcome.code(), Some(INTERRUPTED), "{outcome:?}");
    let ended = summary(&objects(&outcome));
    assert_eq!(
        (&ended["state"], &ended["because"], &ended["left"]),
        (&json!("stopped"), &json!("interrupted"), &json!(200)),
        "{ended}"
    );
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING'")
            .await,
        0
    );
    gate.release();
    let again = summary(&cli.lines("backfill --yes").await);
    assert_eq!(
        (
            &again["operation"],
            &again["state"],
            &again["embedded"],
            &again["marked"]
        ),
        (&ended["operation"], &json!("finished"), &json!(200), &json!(300)),
        "the same one went on"
    );
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn an_interrupted_backfill_stops_within_two_seconds_and_is_gone_on_with() {
    stops_at(Process::interrupt).await;
}

#[tokio::test]
async fn a_terminated_backfill_stops_within_two_seconds_and_is_gone_on_with() {
    stops_at(Process::terminate).await;
}

#[tokio::test]
async fn a_backfill_is_stopped_from_elsewhere_and_rolled_back_without_touching_what_others_asked_for() {
    let (provider, system, cli) = unasked(300).await;
    system.put(PROJECT, "mine", "waits for its own sake").await;
    let gate = provider.hold();
    let backfill = cli.start("backfill --yes --json").await;
    provider.wait_open(4).await;
    let stopped = cli.object("backfill stop").await;
    assert_eq!(stopped["stopped"].as_array().unwrap().len(), 1);
    let outcome = whole(backfill).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let ended = summary(&objects(&outcome));
    assert_eq!(
        (&ended["because"], &ended["left"]),
        (&json!("stopped"), &json!(301)),
        "{ended}"
    );
    assert_eq!(cli.object("backfill stop").await["stopped"], json!([]));
    let status = cli.object("backfill status").await;
    assert_eq!(
        (&status["state"], &status["left"], &status["done"]),
        (&json!("stopped"), &json!(300), &json!(0))
    );
    let id = status["operation"].as_str().unwrap();
    let next = status["next"].as_str().unwrap();
    assert_eq!(
        next,
        format!(
            "ticks embed the 300 that wait; go on with: cronvec backfill --project articles; or take these back: cronvec backfill rollback {id}"
        )
    );

    // Written since: its row was the backfill's, its text is the user's.
    system.put(PROJECT, "r0005", "a new text").await;
    cli.refuses("backfill rollback", USAGE, &["Take back 299 records", "--yes"])
        .await;
    let user = system.database.client().await;
    user.batch_execute("BEGIN; SELECT FROM cronvec.records WHERE id = 'r0020' FOR UPDATE")
        .await
        .unwrap();
    let rolled = cli.object("backfill rollback --yes").await;
    assert_eq!(
        (&rolled["withdrawn"], &rolled["held"]),
        (&json!(298), &json!(1)),
        "{rolled}"
    );
    let next = cli.object("backfill status").await["next"].as_str().unwrap().to_owned();
    assert!(
        next.starts_with("1 were held by somebody") && next.contains("backfill rollback"),
        "{next}"
    );
    user.batch_execute("COMMIT").await.unwrap();
    let rolled = cli.object(&format!("backfill rollback {id} --yes")).await;
    assert_eq!(
        (&rolled["withdrawn"], &rolled["held"]),
        (&json!(1), &json!(0)),
        "{rolled}"
    );
    let left = system
        .value("SELECT array_agg(record_id ORDER BY record_id) FROM cronvec.pending")
        .await;
    assert_eq!(left, json!(["mine", "r0005"]));
    let status = cli.object("backfill status --project articles").await;
    assert_eq!(
        (&status["state"], &status["withdrawn"], &status["marked"]),
        (&json!("rolled_back"), &json!(299), &json!(300))
    );
    assert_eq!(status["next"], "nothing is left of it");
    assert_eq!(cli.object("backfill rollback --yes").await["withdrawn"], 0);
    gate.release();
    assert_eq!(cli.object("tick vectorization").await["records"], 2);
    assert_eq!(
        summary(&cli.lines("backfill --yes").await)["marked"],
        299,
        "a new one begins"
    );
}

#[tokio::test]
async fn a_backfill_that_was_killed_is_told_and_gone_on_with_and_repeats_under_one_in_a_hundred() {
    let (provider, system, cli) = unasked(1_500).await;
    let cli = cli.with("EMBEDDING_BATCH_SIZE", "2");
    let gate = provider.hold();
    let mut backfill = cli.start("backfill --yes --json").await;
    provider.wait_open(4).await;
    gate.pass(300);
    eventually("a good part is stored", || async {
        system.count(EMBEDDED).await == 600
    })
    .await;
    provider.wait_open(4).await;
    backfill.kill().await;
    gate.release();
    // Nobody has heard of it since, and its worker's lease is over.
    system
        .run_sql("UPDATE cronvec.backfills SET updated_at = now() - interval '5 minutes'")
        .await;
    system.expire_leases().await;
    let status = cli.object("backfill status").await;
    assert_eq!(
        (&status["state"], &status["left"], &status["done"]),
        (&json!("running"), &json!(900), &json!(600))
    );
    let next = status["next"].as_str().unwrap();
    assert!(
        next.starts_with("nobody has driven it for 5 minutes, so it was killed; go on with: cronvec backfill"),
        "{next}"
    );
    let ended = summary(&cli.lines("backfill --yes").await);
    assert_eq!(
        (
            &ended["operation"],
            &ended["state"],
            &ended["embedded"],
            &ended["marked"]
        ),
        (&status["operation"], &json!("finished"), &json!(900), &json!(1_500)),
        "{ended}"
    );
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
    let log = provider.log();
    let again = log.inputs() - log.counts.len();
    assert!(
        log.counts.len() == 1_500 && again < 15,
        "{again} of 1,500 were sent twice"
    );
    assert_eq!(cli.object("backfill status").await["next"], "it is done");
}
