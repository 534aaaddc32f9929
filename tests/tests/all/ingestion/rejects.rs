//! Records that aren't taken, while the others are.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::system::{System, record};
use serde_json::{Value, json};

use super::{enqueue_lines, job, pending, stored};

/// 13 lines, of which 4 are good: 1, 5, 12 and 13, the last of which stands for `twice`.
fn mixed_lines() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = [
        json!({"id": "first", "content": "a text", "metadata": {"k": [1]}}),
        json!({"content": "no id"}),
        json!({"id": "", "content": "an empty id"}),
        json!({"id": "no-text", "content": " \n\t"}),
        json!({"id": 42, "content": "a number is an id"}),
        json!({"id": "nul", "content": "a\u{0}b"}),
        json!({"id": "nul-in-metadata", "content": "text", "metadata": {"a": {"b": "\u{0}"}}}),
        json!({"id": "large", "content": "x".repeat(2001)}),
        json!({"id": "list", "content": "text", "metadata": [1, 2]}),
    ]
    .iter()
    .map(|record| record.to_string().into_bytes())
    .collect();
    lines.push(b"{\"id\": \"broken\", ".to_vec());
    lines.push(b"\xff\xfe not UTF-8".to_vec());
    for text in ["said first", "said last"] {
        lines.push(record("twice", text).to_string().into_bytes());
    }
    lines
}

/// The line, the id and what the reason has to say.
const MIXED_REJECTIONS: [(i64, Option<&str>, &str); 9] = [
    (2, None, "no id"),
    (3, Some(""), "no id"),
    (4, Some("no-text"), "no text"),
    (6, Some("nul"), "NUL byte in the text"),
    (7, Some("nul-in-metadata"), "NUL byte in the metadata"),
    (8, Some("large"), "MAX_CONTENT_BYTES"),
    (9, Some("list"), "not a JSON object"),
    (10, None, "not a JSON record"),
    (11, None, "not UTF-8"),
];

fn assert_rejections(result: &Value, first_line: i64) {
    let rejected = result["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), MIXED_REJECTIONS.len(), "{result}");
    for (rejection, (line, id, reason)) in rejected.iter().zip(MIXED_REJECTIONS) {
        assert_eq!(
            (&rejection["line"], &rejection["id"]),
            (&json!(first_line + line - 1), &json!(id)),
            "{result}"
        );
        assert!(rejection["reason"].as_str().unwrap().contains(reason), "{rejection}");
        assert_eq!(rejection.as_object().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn bad_records_are_set_aside_with_line_and_reason_while_the_others_go_in() {
    let system = System::with(&[("MAX_CONTENT_BYTES", "2000"), ("INGEST_BATCH_SIZE", "5")]).await;
    let id = enqueue_lines(&system, &mixed_lines(), EnqueueOptions::default()).await;
    let report = system.ingest().await;
    assert_eq!(
        (report.processed, report.records, report.skipped, report.rejected),
        (1, 3, 1, 9)
    );
    let job = job(&system, id).await;
    assert_eq!(job["status"], "COMPLETED");
    let result = &job["result"];
    assert_eq!(
        (&result["savedCount"], &result["skippedCount"]),
        (&json!(3), &json!(1)),
        "the earlier one of two lines with an id is skipped"
    );
    assert_rejections(result, 1);
    assert_eq!(
        stored(&system).await,
        json!({"first": "a text", "42": "a number is an id", "twice": "said last"})
    );
    assert_eq!(
        system
            .value("SELECT metadata FROM cronvec.records WHERE id = 'first'")
            .await,
        json!({"k": [1]})
    );
    assert_eq!(pending(&system).await, 3);
    assert_eq!(
        job["progress"],
        json!({"current": 13, "total": 13, "message": "storing"})
    );
}

#[tokio::test]
async fn a_staged_payload_of_several_pieces_gives_the_same_result_with_the_same_line_numbers() {
    let system = System::with(&[("MAX_CONTENT_BYTES", "2000")]).await;
    let filler = |n: usize| {
        record(&format!("filler-{n}"), &"word ".repeat(300))
            .to_string()
            .into_bytes()
    };
    let before = 1500;
    let mut lines: Vec<Vec<u8>> = (0..before).map(filler).collect();
    lines.extend(mixed_lines());
    lines.extend((before..before + 20).map(filler));
    let id = enqueue_lines(&system, &lines, EnqueueOptions::default()).await;
    let pieces = system
        .value("SELECT jsonb_agg(jsonb_build_array(first_line, octet_length(body) <= 524288) ORDER BY piece) FROM cronvec.staged")
        .await;
    assert!(pieces.as_array().unwrap().len() >= 4, "{pieces}");
    assert!(pieces.as_array().unwrap().iter().all(|piece| piece[1] == true));
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.job_queue WHERE payload ? 'records'")
            .await,
        0,
        "no slice reads it whole"
    );

    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped, report.rejected), (1523, 1, 9));
    let result = job(&system, id).await["result"].clone();
    assert_eq!(
        (&result["savedCount"], &result["skippedCount"]),
        (&json!(1523), &json!(1))
    );
    assert_rejections(&result, i64::try_from(before).unwrap() + 1);
    assert_eq!(
        system
            .count("SELECT position::bigint FROM cronvec.records WHERE id = 'filler-1519'")
            .await,
        1533
    );
}

#[tokio::test]
async fn what_the_database_alone_finds_wrong_with_a_record_sets_that_one_aside() {
    let system = System::embedding_in_process().await;
    // Fine as JSON; no number of PostgreSQL's.
    let small = format!(r#"{{"id":"tiny","content":"text","metadata":{{"k":1e-{}}}}}"#, 20_000);
    // Fine as text; too long for an index of bytes that don't repeat.
    let letters: String = (0..1000_u32)
        .map(|n| char::from_u32(0x4e00 + (n * 7919) % 20_000).unwrap())
        .collect();
    let long = json!({"id": letters, "content": "text"}).to_string();
    let mut lines: Vec<Vec<u8>> = (0..10)
        .map(|n| record(&format!("r{n}"), "a text").to_string().into_bytes())
        .collect();
    lines.insert(3, small.into_bytes());
    lines.insert(7, long.into_bytes());
    let id = enqueue_lines(&system, &lines, EnqueueOptions::default()).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.rejected), (10, 2));
    let job = job(&system, id).await;
    assert_eq!((&job["status"], &job["attempts"]), (&json!("COMPLETED"), &json!(0)));
    let rejected = &job["result"]["rejected"];
    assert_eq!((&rejected[0]["line"], &rejected[0]["id"]), (&json!(4), &json!("tiny")));
    assert_eq!(rejected[1]["line"], 8);
    assert!(
        rejected[0]["reason"].as_str().unwrap().contains("numeric"),
        "{rejected}"
    );
}

#[tokio::test]
async fn a_job_of_which_nothing_is_taken_has_failed_and_says_which_fields_it_saw() {
    let system = System::embedding_in_process().await;
    let lines: Vec<Vec<u8>> = (0..3)
        .map(|n| json!({"id": n, "text": "of another field"}).to_string().into_bytes())
        .collect();
    let id = enqueue_lines(&system, &lines, EnqueueOptions::default()).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.rejected), (0, 3));
    let job = job(&system, id).await;
    assert_eq!(job["status"], "FAILED");
    let result = &job["result"];
    assert_eq!(
        (&result["savedCount"], &result["rejectedCount"]),
        (&json!(0), &json!(3))
    );
    assert_eq!(result["rejected"].as_array().unwrap().len(), 3, "{result}");
    let error = result["error"].as_str().unwrap();
    for words in [
        "all 3 records were rejected",
        "no text",
        "fields are: id, text",
        "--text FIELD",
    ] {
        assert!(error.contains(words), "{error}");
    }
}
