//! All verbs, one after another on one system: what each prints with `--json`, whether it asks, and what it leaves in the
//! audit log. A verb that isn't in the list fails the test.

use std::collections::BTreeSet;

use cronvec_tests::database::Database;
use cronvec_tests::folder::Folder;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::System;
use serde_json::Value;

use super::{Cli, DONE, USAGE, objects};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It changes nothing.
    Reads,
    /// A worker's work, or a producer's.
    Works,
    /// An operator's act: it is in the audit log.
    Acts,
    /// An act that can't be taken back, or that costs: it asks as well.
    Asks,
}
use Kind::{Acts, Asks, Reads, Works};

/// Theirs is no list of objects about a database that is there.
const ELSEWHERE: [(&str, &str); 4] = [
    (
        "rotate-secret",
        "acts on AWS, where CloudTrail has it, and needs no database",
    ),
    ("serve", "runs until a signal, and answers over HTTP"),
    ("demo", "makes a database of its own, and asks where it is given one"),
    ("completions", "prints a script"),
];

const JOB: &str = "id jobType project status priority attempts maxAttempts progress result scheduledFor createdAt startedAt completedAt";
const SOURCE: &str =
    "project table key text metadata where embeddingColumn onChange phase passes rows changed adopted deleted trouble";
const CHECK: &str = "check status found mend?";
const BACKFILL: &str = "operation project state priority marked withdrawn rounds iteration iterations startedAt updatedAt endedAt left done pending percent perSecond etaSeconds blocked next";
const DRIVEN: &str = "step operation done total percent perSecond etaSeconds quarantined blocked?
    | step operation project state because? marked embedded quarantined left rounds ticks seconds perSecond coverage";

/// SQL that makes something to do, the verb, its line, and the fields of its objects: `?` for those that may be missing,
/// `|` between shapes, `…` where there may be more.
fn lines(file: &str) -> Vec<(&'static str, &'static str, Kind, String, String)> {
    let job_of = |extra: &str| format!("{JOB} {extra}");
    let token = |extra: &str| format!("id name role projects hint createdAt lastUsedAt expiresAt revokedAt {extra}");
    let rows: Vec<(&str, &str, Kind, &str, String)> = vec![
        ("", "migrate up", Acts, "migrate up", "version name applied".into()),
        ("", "migrate status", Reads, "migrate status", "version name applied".into()),
        ("", "migrate verify", Reads, "migrate verify", "ok fault".into()),
        ("", "config check", Reads, "config check", "name value".into()),
        ("", "projects create", Acts, "projects create kb", "project state".into()),
        (
            "",
            "projects list",
            Reads,
            "projects list",
            "name liveSpace nextSpace lanes paused removing space".into(),
        ),
        ("", "projects pause", Acts, "projects pause kb", "project state".into()),
        ("", "projects resume", Acts, "projects resume kb", "project state".into()),
        ("", "stop", Acts, "stop", "success stopped".into()),
        ("", "start", Acts, "start", "success started lanesFreed".into()),
        ("", "ingest", Works, "ingest FILE", "jobId records".into()),
        ("", "tick", Works, "tick ingestion", "success processed duration …".into()),
        ("", "tick", Works, "tick cleanup", "success processed duration deletedCount …".into()),
        (
            "",
            "ingest",
            Works,
            "ingest FILE --wait",
            "savedCount skippedCount rejected rejectedCount? rejectedByReason? failed?".into(),
        ),
        (
            "",
            "provider test",
            Works,
            "provider test",
            "provider model dimensions endpoint? success latencyMs? kind? message? mend?".into(),
        ),
        ("", "search", Reads, "search tomatoes", "id ordinal content metadata score stale".into()),
        (
            "",
            "status",
            Reads,
            "status",
            "queueStats capped? recentJobs oldestPendingJob workers pauses pendingRecords stopped".into(),
        ),
        ("", "stats", Reads, "stats", "jobs capped? pendingRecords quarantined hours".into()),
        ("", "health", Reads, "health", "healthy checks".into()),
        ("", "doctor", Reads, "doctor --offline", CHECK.into()),
        (
            "",
            "metrics",
            Reads,
            "metrics",
            "minutes throughput recordsPerSecond records successRate retryRate failureRate recordDelayMs jobs providerRequestMs deadLetters".into(),
        ),
        (
            "",
            "coverage",
            Reads,
            "coverage",
            "project total embedded pending quarantined percent".into(),
        ),
        ("", "recent", Reads, "recent", JOB.into()),
        (
            "",
            "explain",
            Reads,
            "explain a",
            "project record state because mend? failedAttempts? stale embeddedAt chunks space".into(),
        ),
        (
            "INSERT INTO cronvec.job_queue (id, job_type, project, project_id, status, completed_at)
             SELECT 1000000, 'INGEST_DATA', name, id, 'FAILED', now() FROM cronvec.projects",
            "failed",
            Reads,
            "failed",
            JOB.into(),
        ),
        (
            "",
            "failed",
            Reads,
            "failed --details",
            "kind reason project count example message lastAt".into(),
        ),
        (
            "",
            "job",
            Reads,
            "job 1000000",
            job_of(
                "space lane lanes held crashes backoffMs activeMs worker leaseSecondsLeft cursor payload stagedPieces rejected holdsItsLane",
            ),
        ),
        ("", "retry", Acts, "retry --status failed", "success jobIds passedOver".into()),
        (
            "UPDATE cronvec.job_queue SET status = 'PROCESSING', turn = NULL, lease_token = gen_random_uuid(),
             lease_expires_at = now() - interval '1 hour' WHERE id = 1000000",
            "stuck",
            Reads,
            "stuck",
            "kind jobId jobType project status minutes message mend".into(),
        ),
        ("", "reset-stuck", Acts, "reset-stuck", "success reset jobIds".into()),
        ("", "cancel", Asks, "cancel --type INGEST_DATA", "success jobIds passedOver".into()),
        ("", "retry", Acts, "retry 1000000", "success jobId".into()),
        ("", "cancel", Asks, "cancel 1000000", "success jobId".into()),
        (
            "INSERT INTO cronvec.quarantined_records (space_id, project_id, record_id, content_hash, reason, message, attempts)
             SELECT (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = projects.id AND l.role = 'live'), id, n, '', 'rejected', 'no thanks', 3 FROM cronvec.projects, unnest(ARRAY['a', 'b']) AS n",
            "replay",
            Asks,
            "replay a",
            "success replayed".into(),
        ),
        ("", "purge", Asks, "purge --reason rejected", "success purged".into()),
        (
            "SELECT cronvec.put_record('kb', 'c', 'a text that waits')",
            "clear",
            Asks,
            "clear --project kb",
            "success cancelledJobs withdrawnRecords".into(),
        ),
        (
            "",
            "backfill",
            Reads,
            "backfill --dry-run",
            "project records pending tokens model seconds recordsPerSecond cost price columnIndexes".into(),
        ),
        ("", "backfill", Asks, "backfill", DRIVEN.into()),
        ("", "backfill status", Reads, "backfill status", BACKFILL.into()),
        (
            "UPDATE cronvec.backfills SET state = 'running', ended_at = NULL",
            "backfill stop",
            Acts,
            "backfill stop",
            "success stopped".into(),
        ),
        (
            "",
            "backfill rollback",
            Asks,
            "backfill rollback",
            "success operation withdrawn held".into(),
        ),
        ("", "cleanup", Asks, "cleanup --days 0", "processed deletedCount remaining".into()),
        (
            "CREATE TABLE public.notes (id int PRIMARY KEY, note text); INSERT INTO notes VALUES (1, 'water')",
            "attach",
            Acts,
            "attach notes --text note --yes",
            format!("{SOURCE} written columnIndexes"),
        ),
        ("", "sources", Reads, "sources", SOURCE.into()),
        ("", "reconcile", Acts, "reconcile", format!("{SOURCE} written")),
        ("", "detach", Asks, "detach notes", "project table state".into()),
        (
            "",
            "projects remove",
            Asks,
            "projects remove notes",
            "project state records vectors jobs".into(),
        ),
        (
            "INSERT INTO cronvec.spaces (provider, model, dimensions, chunk_tokens, chunk_overlap, document_prefix, query_prefix)
                 VALUES ('openai', 'old', 8, 100, 0, '', '');
             CREATE TABLE cronvec.chunks_2 PARTITION OF cronvec.chunks FOR VALUES IN (2);
             CREATE TABLE cronvec.embedded_2 PARTITION OF cronvec.embedded FOR VALUES IN (2)",
            "spaces list",
            Reads,
            "spaces list",
            "id provider model dimensions chunkTokens chunkOverlap documentPrefix queryPrefix projects chunks".into(),
        ),
        ("", "spaces remove", Asks, "spaces remove 2", "success removed".into()),
        ("", "token create", Acts, "token create ci --role producer", token("token")),
        ("", "token list", Reads, "token list", token("")),
        ("", "token revoke", Asks, "token revoke ci", "success id name".into()),
        ("", "audit", Reads, "audit", "timestamp level category message metadata operationId".into()),
        // With the schema its log goes, too.
        ("", "uninstall", Asks, "uninstall", "uninstalled".into()),
    ];
    rows.into_iter()
        .map(|(before, verb, kind, line, shape)| (before, verb, kind, line.replace("FILE", file), shape))
        .collect()
}

/// Each verb and each of its own verbs, as `--help` lists them.
async fn verbs(cli: &Cli) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut to_ask = vec![String::new()];
    while let Some(verb) = to_ask.pop() {
        let help = cli.run(&format!("{verb} --help")).await.stdout;
        let below: Vec<&str> = help
            .split("\nCommands:\n")
            .nth(1)
            .unwrap_or_default()
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .collect();
        let usage = help.split("Usage: ").nth(1).unwrap().lines().next().unwrap();
        if !verb.is_empty() && !usage.contains("<COMMAND>") {
            found.insert(verb.clone());
        }
        to_ask.extend(below.iter().map(|name| format!("{verb} {name}").trim().to_owned()));
    }
    found
}

#[track_caller]
fn assert_shape(line: &str, object: &Value, shape: &str) {
    let has: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let fits = shape.split('|').any(|shape| {
        let named: BTreeSet<&str> = shape
            .split_whitespace()
            .map(|name| name.trim_end_matches('?'))
            .collect();
        let needed = shape
            .split_whitespace()
            .filter(|name| !name.ends_with('?') && *name != "…");
        let is_open = named.contains("…");
        needed.into_iter().all(|name| has.contains(name)) && (is_open || has.is_subset(&named))
    });
    assert!(fits, "{line} has {has:?}, not {shape}");
}

/// Everything that an act could change.
async fn state(system: &System) -> Value {
    let mut all = system.written().await;
    for table in ["projects", "spaces", "sources", "backfills", "api_tokens", "audit_log"] {
        all[table] = system
            .value(&format!("SELECT coalesce(jsonb_agg(t), '[]') FROM cronvec.{table} t"))
            .await;
    }
    all
}

#[tokio::test]
async fn every_verb_prints_objects_of_its_shape_and_each_that_destroys_asks_and_is_written_down() {
    let provider = Provider::start().await;
    let database = Database::empty().await;
    let folder = Folder::new();
    let file = folder.file(
        "records.ndjson",
        "{\"id\":\"a\",\"content\":\"Water the tomatoes.\"}\n{\"id\":\"b\",\"content\":\"Oil the chain.\"}",
    );
    let cli = Cli::at(database.url())
        .with("EMBEDDING_PROVIDER", "openai")
        .with("OPENAI_BASE_URL", &provider.url())
        .with("EMBEDDING_DIMENSIONS", "16");
    let url = database.url().to_owned();
    let system = System::bare(database, &url, &[]).await;
    let lines = lines(&file);

    let mut covered: BTreeSet<String> = lines.iter().map(|(_, verb, ..)| (*verb).to_owned()).collect();
    covered.extend(ELSEWHERE.iter().map(|(verb, _)| (*verb).to_owned()));
    assert_eq!(verbs(&cli).await, covered, "each verb is in the list");

    let acts = "SELECT count(*) FROM cronvec.audit_log";
    for (before, verb, kind, line, shape) in &lines {
        system.run_sql(before).await;
        let is_first = *verb == "migrate up";
        if *kind == Asks {
            let untouched = state(&system).await;
            cli.refuses(line, USAGE, &["?", "--yes"]).await;
            assert_eq!(state(&system).await, untouched, "{line} was only asked");
        }
        let acts_before = if is_first { 0 } else { system.count(acts).await };
        let yes = if *kind == Asks { " --yes" } else { "" };
        let outcome = cli.run(&format!("{line}{yes} --json")).await;
        assert_eq!(outcome.code(), Some(DONE), "{line}: {outcome:?}");
        let objects = objects(&outcome);
        assert!(!objects.is_empty(), "{line}: {outcome:?}");
        for object in &objects {
            assert_shape(line, object, shape);
        }
        if *verb == "uninstall" {
            continue;
        }
        let written = system.count(acts).await - acts_before;
        match kind {
            Reads => assert_eq!(written, 0, "{line} is no act"),
            Works => {}
            Acts | Asks => {
                assert!(written > 0, "{line} is in the audit log");
                let who = system
                    .value("SELECT metadata->>'who' FROM cronvec.audit_log ORDER BY id DESC LIMIT 1")
                    .await;
                assert!(who.as_str().is_some_and(|who| who.contains('@')), "{line}: {who}");
            }
        }
    }
}

/// Words of the documentation, as names are written in it.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric()).collect()
}

#[test]
fn the_shape_of_every_verb_is_documented() {
    let documentation = include_str!("../../../../docs/CLI.md");
    let first_cells: Vec<&str> = documentation
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" | ").next())
        .collect();
    let known = words(documentation);
    for (_, verb, _, line, shape) in lines("FILE") {
        let has_row = first_cells
            .iter()
            .any(|cell| verb.split(' ').all(|word| cell.contains(word)));
        assert!(has_row || verb == "backfill", "{verb} has a row in docs/CLI.md");
        for field in words(&shape) {
            assert!(known.contains(field), "{field} of `{line}` stands in docs/CLI.md");
        }
    }
    for (verb, _) in ELSEWHERE {
        assert!(documentation.contains(verb), "{verb}");
    }
}
