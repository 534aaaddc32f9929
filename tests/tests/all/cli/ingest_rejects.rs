//! `ingest`: what isn't taken, and that nothing of a file is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use cronvec_tests::conditions::eventually;
use cronvec_tests::folder::Folder;
use cronvec_tests::system::System;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Cli, DONE, FAILED, USAGE, objects};

fn kept(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_broken_row_does_not_end_its_file_and_can_be_mended_and_sent_again() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let mut text = "id;text\n".to_owned();
    for n in 0..1200 {
        match n {
            100 => text.push_str("r100;one;too many\n"),
            1100 => text.push_str("r1100;\n"),
            1150 => text.push_str("r1150;\"open\n"),
            n => writeln!(text, "r{n};\"text {n}\"").unwrap(),
        }
    }
    let file = folder.file("records.txt", &text);
    let rejects = folder.file("rejects.ndjson", "of another time");
    let line = format!("ingest {file} --delimiter ; --text text --rejects {rejects} --wait --json");
    let outcome = cli.run(&line).await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    let result = &objects(&outcome)[0];
    assert_eq!(
        (&result["savedCount"], &result["skippedCount"], &result["rejectedCount"]),
        (&json!(1197), &json!(0), &json!(3))
    );
    let lines: Vec<&Value> = result["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["line"])
        .collect();
    assert_eq!(lines, [102, 1102, 1152]);

    let mut kept = kept(&rejects);
    kept.sort_by_key(|one| one["line"].as_u64());
    let raw: Vec<&str> = kept.iter().map(|one| one["raw"].as_str().unwrap()).collect();
    assert_eq!(raw[0], "r100;one;too many");
    assert_eq!(
        serde_json::from_str::<Value>(raw[1]).unwrap(),
        json!({"id": "r1100", "content": "", "metadata": {}}),
        "what reading took and ingestion did not is kept as a record"
    );
    assert_eq!((raw[2], &kept[1]["id"]), ("r1150;\"open", &json!("r1100")));

    let mended = folder.file("mended.csv", "id;text\nr100;one\nr1150;\"closed\"\n");
    let result = cli
        .object(&format!("ingest {mended} --delimiter ; --text text --wait"))
        .await;
    assert_eq!(result["savedCount"], 2);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, 1199);
    let itself = cli.run(&format!("ingest {file} --rejects {file}")).await;
    assert_eq!(itself.code(), Some(USAGE), "{itself:?}");
}

#[tokio::test]
async fn more_rejects_than_a_jobs_result_shows_are_all_in_the_file_with_the_lines_of_the_file() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let mut text = String::new();
    for n in 0..3000 {
        // Blank lines part the lines of the file from those of the jobs.
        writeln!(text, "\n{{\"id\":\"r{n}\"}}").unwrap();
    }
    let file = folder.file("records.ndjson", &text);
    let rejects = folder.0.join("rejects.ndjson");
    let outcome = cli
        .run(&format!("ingest {file} --rejects {} --wait", rejects.display()))
        .await;
    assert_eq!(outcome.code(), Some(FAILED));
    assert!(
        outcome.stdout.contains("0 saved, 0 skipped, 3,000 rejected"),
        "{outcome:?}"
    );
    assert!(
        outcome.stdout.contains("and 2,990 more") && outcome.stdout.contains("3,000 × no text"),
        "{outcome:?}"
    );
    assert!(outcome.stdout.lines().count() < 20, "{outcome:?}");
    let lines: Vec<u64> = kept(rejects.to_str().unwrap())
        .iter()
        .map(|one| one["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, (1..=3000).map(|n| n * 2).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_file_of_which_nothing_is_taken_is_a_failure_that_names_its_fields_and_the_options_for_them() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let wrong: String = (0..1_500)
        .map(|n| format!("{{\"nr\": {n}, \"body\": \"a text\"}}\n"))
        .collect();
    let file = folder.file("wrong.ndjson", &wrong);
    let rejects = folder.file("rejects.ndjson", "");
    for more in ["", " --wait", " --text contents"] {
        let line = format!("ingest {file} --rejects {rejects}{more}");
        let outcome = cli.run(&line).await;
        assert_eq!(outcome.code(), Some(FAILED), "{line}: {outcome:?}");
        for words in ["no record was taken", "body, nr", "--text FIELD", "--id FIELD"] {
            assert!(outcome.stderr.contains(words), "{line}: {outcome:?}");
        }
        assert_eq!(kept(&rejects).len(), 1_500, "{line}");
    }
    assert_eq!(system.count("SELECT count(*) FROM cronvec.job_queue").await, 0);
    let noise = folder.file("noise.ndjson", "not json at all\nnor this\n");
    cli.refuses(&format!("ingest {noise}"), FAILED, &["not a JSON record", "--format"])
        .await;
    // Two fields in one option, as `attach` takes columns.
    let both = folder.file(
        "both.ndjson",
        r#"{"nr": 7, "title": "Tomatoes", "body": "Water them."}"#,
    );
    let outcome = cli
        .run(&format!(
            "ingest {both} --id nr --text title,body --metadata nr,title --wait"
        ))
        .await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let record = "SELECT jsonb_build_array(content, metadata) FROM cronvec.records WHERE id = '7'";
    assert_eq!(
        system.value(record).await,
        json!(["Tomatoes\n\nWater them.", {}]),
        "what is id or text isn't metadata, too"
    );
}

#[tokio::test]
async fn without_waiting_it_says_what_reading_found_and_that_the_rest_is_not_known() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let file = folder.file("records.csv", "id,content\na,b,c\nd,e\n,f\n");
    let outcome = cli.run(&format!("ingest {file} --json")).await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    assert_eq!(objects(&outcome)[0]["records"], 2);
    for words in ["line 2: 3 columns", "known when they have run"] {
        assert!(outcome.stderr.contains(words), "{outcome:?}");
    }
    cli.object("tick ingestion").await;
    let id = objects(&outcome)[0]["jobId"].as_str().unwrap().to_owned();
    let result = cli.object(&format!("job {id}")).await["result"].clone();
    assert_eq!(result["rejected"], json!([{"line": 4, "id": "", "reason": "no id"}]));
}

#[tokio::test]
async fn a_file_that_breaks_off_is_stored_up_to_there() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let file = folder.file(
        "records.ndjson",
        "{\"id\":\"a\",\"content\":\"x\"}\n{\"id\":\"b\",\"content\":\"y\"}\n{\"id\":\"c\",\"cont",
    );
    let outcome = cli.run(&format!("ingest {file} --wait --json")).await;
    let result = &objects(&outcome)[0];
    assert_eq!(
        (&result["savedCount"], &result["rejected"][0]["line"]),
        (&json!(2), &json!(3))
    );

    let array = folder.file("cut.json", "[{\"id\":\"d\",\"content\":\"x\"},{\"id\":\"e\",\"con");
    let outcome = cli.run(&format!("ingest {array} --wait --json")).await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    assert!(
        outcome.stderr.contains("the JSON is broken") && outcome.stderr.contains("does no harm"),
        "{outcome:?}"
    );
    let result = &objects(&outcome)[0];
    assert_eq!(
        (&result["savedCount"], &result["rejected"][0]["line"]),
        (&json!(1), &json!(2))
    );
}

#[tokio::test]
async fn a_file_whose_reader_was_killed_half_way_is_sent_again_and_stored_once() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let records = 60_000;
    let mut text = String::new();
    for n in 0..records {
        // Two records have one text each.
        writeln!(
            text,
            "{{\"id\":\"r{n}\",\"content\":\"text {} {}\"}}",
            n / 2,
            "word ".repeat(30)
        )
        .unwrap();
    }
    let file = folder.file("records.ndjson", &text);
    let mut first = cli.start(&format!("ingest {file} --no-embeddings")).await;
    eventually("some of it is handed in", || async {
        system.count("SELECT count(*) FROM cronvec.job_queue").await > 3
    })
    .await;
    first.kill().await;
    assert!(
        system.count("SELECT count(*) FROM cronvec.job_queue").await < records / 1000,
        "it was in the middle"
    );
    system.ingest().await;
    let stored = system.count("SELECT count(*) FROM cronvec.records").await;
    assert!(0 < stored && stored < records, "{stored}");

    let again = cli.object(&format!("ingest {file} --no-embeddings --wait")).await;
    assert_eq!(
        (&again["savedCount"], &again["skippedCount"]),
        (&json!(records - stored), &json!(stored))
    );
    assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, records);
}

/// Counts the passes that workers begin.
const NOTE_PASSES: &str = "CREATE TABLE public.passes (at timestamptz);
     CREATE FUNCTION public.note_pass() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN INSERT INTO public.passes VALUES (now()); RETURN NULL; END';
     CREATE TRIGGER note_pass AFTER INSERT OR UPDATE ON cronvec.worker_status FOR EACH ROW
         EXECUTE FUNCTION public.note_pass()";
/// No fault of a record's: whoever writes this table fails.
fn breaking(table: &str) -> String {
    format!(
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN RAISE EXCEPTION ''the disk is on fire''; END';
         CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.fail()"
    )
}

#[tokio::test]
async fn wait_goes_on_while_a_job_that_stores_or_embeds_waits_to_be_tried_again() {
    for table in ["cronvec.records", "cronvec.embedded"] {
        let system = System::embedding_in_process().await;
        system.run_sql(NOTE_PASSES).await;
        system.run_sql(&breaking(table)).await;
        let cli = Cli::at(system.database.url());
        let folder = Folder::new();
        let file = folder.file("records.ndjson", "{\"id\":\"a\",\"content\":\"x\"}");
        let mut process = cli.start(&format!("ingest {file} --wait --json")).await;
        // Longer than it would be patient with a job that doesn't move.
        let later = "SELECT count(*) FROM public.passes, (SELECT min(at) AS first FROM public.passes) AS f
            WHERE at > first + interval '6 seconds'";
        while system.count(later).await == 0 {
            assert!(process.ended().is_none(), "it gave up: {}", process.stderr());
            tokio::task::yield_now().await;
        }
        system
            .run_sql(&format!(
                "DROP TRIGGER fail ON {table};
                 UPDATE cronvec.job_queue SET scheduled_for = now() WHERE status = 'PENDING'"
            ))
            .await;
        let outcome = process.outcome().await;
        assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
        assert_eq!(objects(&outcome)[0]["savedCount"], 1);
        assert!(outcome.stderr.contains("tried again"), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_job_that_failed_is_told_with_its_reason_and_lines() {
    let system = System::embedding_in_process().await;
    system.run_sql(&breaking("cronvec.records")).await;
    let cli = Cli::at(system.database.url()).with("EMBEDDING_MAX_RETRIES", "1");
    let folder = Folder::new();
    let file = folder.file(
        "records.ndjson",
        "\n{\"id\":\"a\",\"content\":\"x\"}\n{\"id\":\"b\",\"content\":\"x\"}",
    );
    let outcome = cli.run(&format!("ingest {file} --wait --json")).await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    let failed = &objects(&outcome)[0]["failed"][0];
    assert_eq!(
        (&failed["status"], &failed["firstLine"], &failed["lastLine"]),
        (&json!("FAILED"), &json!(2), &json!(3))
    );
    assert!(
        failed["error"].as_str().unwrap().contains("the disk is on fire"),
        "{failed}"
    );
}

#[tokio::test]
async fn a_job_that_failed_to_embed_is_told_with_its_reason_beside_what_was_stored() {
    let system = System::embedding_in_process().await;
    system.run_sql(&breaking("cronvec.chunks_1")).await;
    let cli = Cli::at(system.database.url()).with("EMBEDDING_MAX_RETRIES", "1");
    let folder = Folder::new();
    let file = folder.file(
        "records.ndjson",
        "{\"id\":\"a\",\"content\":\"tomatoes\"}\n{\"id\":\"b\",\"content\":\"water\"}",
    );
    let line = format!("ingest {file} --wait");
    let outcome = cli.run(&format!("{line} --json")).await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    let result = objects(&outcome).remove(0);
    let failed = &result["failed"][0];
    assert_eq!(
        (&result["savedCount"], &failed["status"], &failed["left"]),
        (&json!(2), &json!("FAILED"), &json!(2)),
        "{result}"
    );
    assert!(
        failed["error"].as_str().unwrap().contains("the disk is on fire"),
        "{failed}"
    );
    let id = failed["jobId"].as_str().unwrap();
    let said = cli.run(&line).await;
    assert_eq!(said.code(), Some(FAILED), "{said:?}");
    assert!(
        said.stdout
            .contains(&format!("job {id} ended FAILED, 2 records aren't embedded"))
            && said.stdout.contains(&format!("cronvec retry {id}")),
        "{said:?}"
    );
    system.run_sql("DROP TRIGGER fail ON cronvec.chunks_1").await;
    cli.object(&format!("retry {id}")).await;
    assert_eq!(cli.object(&line).await["skippedCount"], 2);
    assert_eq!(cli.object("coverage").await["embedded"], 2);
}

const VARIANTS: usize = 1000;

/// One or several changes that a good line may suffer.
fn mutate(line: &str, chance: &mut StdRng) -> Vec<u8> {
    let mut bytes = line.as_bytes().to_vec();
    for _ in 0..chance.random_range(1..=3) {
        let at = chance.random_range(0..=bytes.len());
        let piece: Vec<u8> = match chance.random_range(0..12) {
            0 => vec![chance.random()],
            1 => b"\\ud800".to_vec(),
            2 => b"\0".to_vec(),
            3 => b"\\u0000".to_vec(),
            4 => vec![chance.random_range(1..32)],
            5 => "[".repeat(chance.random_range(1..5000)).into_bytes(),
            6 => b"1e999".to_vec(),
            7 => "9".repeat(400).into_bytes(),
            8 => b"\"".to_vec(),
            9 => b"\xed\xa0\x80".to_vec(),
            10 => b"null".to_vec(),
            _ => Vec::new(),
        };
        match chance.random_range(0..4) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << chance.random_range(0..8),
            2 => {
                let until = (at + chance.random_range(0..8)).min(bytes.len());
                bytes.drain(at..until);
            }
            _ => drop(bytes.splice(at..at, piece)),
        }
    }
    bytes
}

/// Good lines with a bad one behind each; gives them, and how many lines have something in them.
fn malformed(seed: u64, good: impl Fn(usize) -> String, header: &str) -> (Vec<u8>, u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut all = header.as_bytes().to_vec();
    for n in 0..VARIANTS {
        all.extend(good(n).into_bytes());
        all.push(b'\n');
        let wrong = [
            format!("{{\"id\":{{}},\"content\":\"w{n}\"}}"),
            format!("{{\"id\":\"w{n}\",\"content\":[1]}}"),
            format!("{{\"id\":\"w{n}\",\"content\":\"x\",\"metadata\":\"text\"}}"),
            format!(
                "{{\"id\":\"w{n}\",\"content\":\"x\",\"metadata\":{}1{}}}",
                "{\"a\":".repeat(500),
                "}".repeat(500)
            ),
        ];
        all.extend(match n % 10 {
            0 => wrong[n / 10 % wrong.len()].clone().into_bytes(),
            _ => {
                let mut line = mutate(&good(VARIANTS + n), &mut chance);
                // In quotes a line break would make one good row of two lines.
                line.retain(|byte| header.is_empty() || *byte != b'\n');
                line
            }
        });
        all.push(b'\n');
    }
    let lines = all
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty());
    let count = lines.count() as u64 - u64::from(!header.is_empty());
    (all, count)
}

/// Hands a file in; gives what is stored by id, and the lines that were rejected.
async fn sum_up(system: &System, bytes: &[u8], name: &str, lines: u64) -> (BTreeMap<String, String>, BTreeSet<u64>) {
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let file = folder.0.join(name);
    std::fs::write(&file, bytes).unwrap();
    let rejects = folder.0.join("rejects.ndjson");
    let line = format!(
        "ingest {} --no-embeddings --wait --json --rejects {}",
        file.display(),
        rejects.display()
    );
    let outcome = cli.run(&line).await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    let result = &objects(&outcome)[0];
    assert!(result["failed"].is_null(), "{result}");
    let number = |name: &str| result[name].as_u64().unwrap();
    assert_eq!(
        number("savedCount") + number("skippedCount") + number("rejectedCount"),
        lines,
        "nothing is lost, nothing counted twice"
    );
    let kept = kept(rejects.to_str().unwrap());
    assert!(kept.iter().all(|one| !one["reason"].as_str().unwrap().is_empty()));
    assert_eq!(kept.len() as u64, number("rejectedCount"));
    let rejected: BTreeSet<u64> = kept.iter().map(|one| one["line"].as_u64().unwrap()).collect();
    assert_eq!(rejected.len(), kept.len(), "each line once");
    println!("{name}: {lines} lines, {} rejected", rejected.len());
    assert!(rejected.len() > VARIANTS / 4, "{}", rejected.len());
    let rows = system
        .sql
        .query_typed("SELECT id, content FROM cronvec.records", &[])
        .await
        .unwrap();
    (rows.iter().map(|row| (row.get(0), row.get(1))).collect(), rejected)
}

#[tokio::test]
async fn of_a_thousand_malformed_lines_of_ndjson_each_is_stored_or_rejected_with_a_reason() {
    let system = System::embedding_in_process().await;
    let good =
        |n: usize| json!({"id": format!("r{n}"), "content": format!("text {n} ü"), "metadata": {"n": n}}).to_string();
    let (bytes, lines) = malformed(7, good, "");
    let (stored, rejected) = sum_up(&system, &bytes, "records.ndjson", lines).await;
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() || rejected.contains(&line) {
            continue;
        }
        // Read by somebody else: what was accepted is a record.
        let record: BTreeMap<String, &RawValue> =
            serde_json::from_slice(text.trim_ascii()).unwrap_or_else(|error| panic!("line {line}: {error}"));
        let id = record["id"].get();
        let id = serde_json::from_str(id).unwrap_or_else(|_| id.to_owned());
        expected.insert(id, serde_json::from_str(record["content"].get()).unwrap());
    }
    assert_eq!(stored, expected);
    assert!(
        (0..VARIANTS).all(|n| stored.contains_key(&format!("r{n}"))),
        "no good line suffers"
    );
}

#[tokio::test]
async fn of_a_thousand_malformed_rows_of_csv_each_is_stored_or_rejected_and_takes_no_other_with_it() {
    let system = System::embedding_in_process().await;
    // No change makes one of the good ids of another.
    let good = |n: usize| {
        let id = if n < VARIANTS { 'r' } else { 'm' };
        format!("\"{id}{n}\",\"text {n}, \"\"ü\"\"\",topic")
    };
    let (bytes, lines) = malformed(11, good, "id,content,topic\n");
    let (stored, rejected) = sum_up(&system, &bytes, "records.csv", lines).await;
    for n in 0..VARIANTS {
        assert_eq!(stored[&format!("r{n}")], format!("text {n}, \"ü\""));
    }
    let accepted: BTreeSet<&str> = stored.keys().map(String::as_str).collect();
    assert!(accepted.len() as u64 + rejected.len() as u64 <= lines);
    assert!(accepted.len() > VARIANTS, "some of the others are records all the same");
}
