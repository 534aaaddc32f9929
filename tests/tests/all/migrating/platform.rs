//! A platform whose cron calls endpoints with a bearer secret.

use cronvec_tests::conditions::eventually_some;
use cronvec_tests::database::connect;
use cronvec_tests::http;
use cronvec_tests::provider::Provider;
use serde_json::{Value, json};

use super::{Reader, guide, says};

const SECRET: &str = "the-secret-of-their-cron";

/// The request of a block, sent to this address.
async fn calls(address: &str, block: &str, secret: &str) -> (u16, Value) {
    let request = guide::block(block, "http");
    let mut lines = request.lines();
    let (method, path) = lines.next().and_then(|line| line.split_once(' ')).expect("a request");
    let mut sent = http::client().request(method.parse().unwrap(), format!("{address}{path}"));
    for header in lines {
        let (name, value) = header.split_once(": ").expect("a header");
        sent = sent.header(name, value.replace("$CRON_SECRET", secret));
    }
    let answer = sent.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn platform(provider: &Provider) -> Reader {
    let mut reader = Reader::with(provider).await;
    reader.set("CRON_SECRET", SECRET);
    reader.set("SESSION_SECRET", "a-secret-of-more-than-32-characters");
    reader.set("PUBLIC_URL", "https://cronvec.example.com");
    reader.says("platform: schema").await;
    let fill = "INSERT INTO projects (name) VALUES ('reviews'), ('tickets');
        INSERT INTO data_records (project_id, content, metadata)
        SELECT id, name || ' number ' || n, jsonb_build_object('archived', n > 25)
        FROM projects, generate_series(1, 30) AS n;";
    says(&reader.sql, fill).await;
    reader
}

#[tokio::test]
async fn their_cron_calls_its_three_paths_with_its_bearer_and_the_data_moves() {
    let provider = Provider::start().await;
    let reader = platform(&provider).await;
    reader.runs("platform: projects").await;
    let moved = reader.says("platform: records").await;
    assert_eq!(moved.len(), 2, "{moved:?}");
    let service = reader
        .start("exec cronvec serve --json --no-schedule --listen 127.0.0.1:0")
        .await;
    let address = eventually_some("it listens", || async {
        let said: Value = serde_json::from_str(service.stdout().lines().next()?).ok()?;
        Some(format!("http://{}", said["listening"].as_str()?))
    })
    .await;
    assert_eq!(calls(&address, "platform: vectorization", "another").await.0, 401);

    let (status, told) = calls(&address, "platform: vectorization", SECRET).await;
    assert_eq!(
        (
            status,
            &told["success"],
            &told["records"],
            &told["failed"],
            &told["remaining"],
            &told["stoppedBecause"]
        ),
        (
            200,
            &json!(true),
            &json!(60),
            &json!(0),
            &json!(false),
            &json!("drained")
        ),
        "{told}"
    );
    let folder = std::env::temp_dir().join(format!("cronvec-platform-{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(
        folder.join("new.ndjson"),
        "{\"id\":\"new\",\"content\":\"a new review\"}\n",
    )
    .unwrap();
    let ingest = format!("cd {}\n{}", folder.display(), guide::block("platform: ingest", "sh"));
    let said = reader.run(&ingest).await;
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(said.status.success(), "{said:?}");
    let (status, told) = calls(&address, "platform: ingestion", SECRET).await;
    assert_eq!(
        (status, &told["processed"], told["duration"].is_number()),
        (200, &json!(1), true),
        "{told}"
    );
    calls(&address, "platform: vectorization", SECRET).await;
    let (status, told) = calls(&address, "platform: cleanup", SECRET).await;
    assert_eq!(
        (status, &told["success"], &told["deletedCount"]),
        (200, &json!(true), &json!(0)),
        "{told}"
    );
    assert_eq!(reader.coverage("reviews").await, (31, 31, 100.0));

    reader.runs("platform: attach").await;
    calls(&address, "platform: vectorization", SECRET).await;
    assert_eq!(reader.coverage("archive").await, (10, 10, 100.0));
    reader.runs("platform: check").await;
    reader.runs("platform: go back").await;
    assert_eq!(reader.count("SELECT count(*) FROM data_records").await, 60);
}

#[tokio::test]
async fn their_sql_over_the_queue_works_for_who_has_the_schema_in_the_search_path() {
    let provider = Provider::start().await;
    let reader = platform(&provider).await;
    reader.runs("platform: projects").await;
    let jobs = "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, attempts, result, started_at, completed_at)
        SELECT 'INGEST_DATA', name, id, s, 3, jsonb_build_object('error', 'it broke'), now() - interval '4 seconds',
            CASE WHEN s <> 'PENDING' THEN now() END
        FROM cronvec.projects, unnest(ARRAY['PENDING', 'COMPLETED', 'FAILED']) AS s WHERE name = 'reviews';";
    says(&reader.sql, jobs).await;
    let analyst = connect(reader.database.url()).await;
    analyst
        .batch_execute("SET search_path = cronvec, public")
        .await
        .unwrap();
    let rows = says(&analyst, &guide::block("platform: queue", "sql")).await;
    let rows: Vec<Vec<&str>> = rows
        .iter()
        .map(|row| row.iter().flatten().map(String::as_str).collect())
        .collect();
    assert_eq!(
        rows[..3],
        [
            ["INGEST_DATA", "COMPLETED", "1"],
            ["INGEST_DATA", "FAILED", "1"],
            ["INGEST_DATA", "PENDING", "1"]
        ]
    );
    assert_eq!(rows[3][0], "INGEST_DATA");
    assert!(rows[3][1].starts_with("4.0"), "{rows:?}");
    assert_eq!((rows[4][1], rows[4][2], rows[4][3]), ("INGEST_DATA", "3", "it broke"));
    assert_eq!((rows.len(), rows[5][1]), (6, "INGEST_DATA"));
}
