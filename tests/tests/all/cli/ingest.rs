//! `ingest`: what files may look like.

use cronvec_tests::folder::Folder;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::{Cli, DONE, FAILED, USAGE, objects};

/// What is stored of a project's record.
async fn stored(system: &System, id: &str) -> Value {
    let row = format!("SELECT jsonb_build_array(content, metadata) FROM cronvec.records WHERE id = '{id}'");
    system.value(&row).await
}

#[tokio::test]
async fn ingest_takes_ndjson_and_tells_what_it_rejects_by_line() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let text = "{\"id\":\"a\",\"content\":\"Water the tomatoes.\",\"metadata\":{\"topic\":\"garden\"}}\n\
                nonsense\n\
                \n\
                {\"id\":\"b\",\"content\":\"\"}\n\
                {\"content\":\"no id\"}\n\
                {\"id\":\"c\",\"content\":\"Oil the bicycle's chain.\"}\n";
    let file = folder.file("records.ndjson", text);
    let outcome = cli.run(&format!("ingest {file} --wait --json")).await;
    assert_eq!(outcome.code(), Some(FAILED), "some were rejected: {outcome:?}");
    let [result] = &objects(&outcome)[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!((&result["savedCount"], &result["skippedCount"]), (&json!(2), &json!(0)));
    let rejected: Vec<(u64, &Value)> = result["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rejected| {
            assert!(!rejected["reason"].as_str().unwrap().is_empty());
            (rejected["line"].as_u64().unwrap(), &rejected["id"])
        })
        .collect();
    assert_eq!(rejected, [(2, &Value::Null), (4, &json!("b")), (5, &Value::Null)]);
    assert_eq!(
        stored(&system, "a").await,
        json!(["Water the tomatoes.", {"topic": "garden"}])
    );

    let good = folder.file("good.ndjson", text.lines().next().unwrap());
    let again = cli.object(&format!("ingest {good} --wait")).await;
    assert_eq!(again, json!({"savedCount": 0, "skippedCount": 1, "rejected": []}));
    let plain = cli.run(&format!("ingest {file} --wait")).await;
    assert!(plain.stdout.contains("0 saved, 2 skipped, 3 rejected"), "{plain:?}");
    assert!(plain.stdout.contains("line 4 (b): "), "{plain:?}");
    let coverage = cli.object("coverage").await;
    assert_eq!(
        coverage,
        json!({"project": PROJECT, "total": 2, "embedded": 2, "pending": 0, "quarantined": 0, "percent": 100.0})
    );
}

#[tokio::test]
async fn ingest_takes_csv_with_quotes_line_breaks_and_a_byte_order_mark() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let text = "\u{feff}key,body,topic,metadata\r\n\
                1,\"She said \"\"water them\"\", and left.\",garden,\"{\"\"page\"\": 7}\"\r\n\
                2,\"two\nlines, one text\",,\r\n\
                3,,empty,\r\n\
                4,plain,bicycle,\r\n";
    let file = folder.file("records.csv", text);
    let outcome = cli
        .run(&format!("ingest {file} --id key --text body --wait --json"))
        .await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    let result = &objects(&outcome)[0];
    assert_eq!(
        (&result["savedCount"], &result["rejected"][0]["line"]),
        (&json!(3), &json!(5))
    );
    assert_eq!(
        stored(&system, "1").await,
        json!(["She said \"water them\", and left.", {"topic": "garden", "page": 7}])
    );
    assert_eq!(
        stored(&system, "2").await,
        json!(["two\nlines, one text", {"topic": ""}])
    );
    assert_eq!(stored(&system, "4").await, json!(["plain", {"topic": "bicycle"}]));
    cli.refuses(
        &format!("ingest {file} --id key"),
        USAGE,
        &["no column 'content'", "--text"],
    )
    .await;
}

#[tokio::test]
async fn ingest_takes_json_and_standard_input_and_queues_a_job_for_each_piece() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let array = folder.file(
        "records.json",
        "[\n{\"id\": \"a\",\n\"content\": \"one\\nrecord\"},\n{\"id\": \"b\", \"content\": \"two\"}]",
    );
    let job = cli.object(&format!("ingest {array} --priority -5")).await;
    assert_eq!(job["records"], 2);
    let queued = cli.object(&format!("job {}", job["jobId"].as_str().unwrap())).await;
    assert_eq!(
        (&queued["status"], &queued["priority"], &queued["jobType"]),
        (&json!("PENDING"), &json!(-5), &json!("INGEST_DATA"))
    );

    let many: String = (0..1500)
        .map(|n| format!("{{\"id\":\"r{n}\",\"content\":\"text number {n}\"}}\n"))
        .collect();
    let outcome = cli.run_reading("ingest - --no-embeddings --json", &many).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let records: Vec<Value> = objects(&outcome).iter().map(|job| job["records"].clone()).collect();
    assert_eq!(records, [json!(1000), json!(500)]);
    let report = cli.object("tick ingestion").await;
    assert_eq!((&report["processed"], &report["records"]), (&json!(3), &json!(1502)));
    assert_eq!(stored(&system, "a").await, json!(["one\nrecord", {}]));
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.pending").await,
        2,
        "the others weren't to be embedded"
    );
    let empty = cli.run_reading("ingest - --json", "").await;
    assert_eq!((empty.code(), empty.stdout.as_str()), (Some(DONE), ""));
}

#[tokio::test]
async fn ingest_says_what_is_wrong_with_a_file_or_project() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    cli.refuses(
        "ingest /no/such/file.ndjson",
        FAILED,
        &["cannot open /no/such/file.ndjson"],
    )
    .await;
    let broken = folder.file("broken.json", "[{\"id\":\"a\",");
    cli.refuses(
        &format!("ingest {broken}"),
        FAILED,
        &["broken.json", "the JSON is broken"],
    )
    .await;
    let good = folder.file("good.ndjson", "{\"id\":\"a\",\"content\":\"x\"}");
    cli.refuses(
        &format!("ingest {good} --project nobody"),
        FAILED,
        &["no project 'nobody'", "cronvec projects create"],
    )
    .await;
    system.create_project("another").await;
    cli.refuses(
        &format!("ingest {good}"),
        USAGE,
        &["which project?", "another, articles"],
    )
    .await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.job_queue").await, 0);
}
