//! What a search finds, beside what a computation over all vectors finds.

use std::collections::HashMap;

use cronvec_pipeline as pipeline;
use cronvec_provider::{Purpose, Timeout};
use cronvec_secrets::Secrets;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::system::{PROJECT, System, record};
use tokio_postgres::types::Type;

const QUESTIONS: [&str; 10] = [
    "edit photos and pictures",
    "watch films and listen to music",
    "a game with cards",
    "send mail from the command line",
    "learn the stars and planets",
    "a library for compressing data",
    "draw maps of towns and roads",
    "check the spelling of a text",
    "keep time on many machines in step",
    "write programs for small computers",
];

/// Texts of our own, some of several chunks; or the lines of `CRONVEC_CORPUS`, `{"id","content"}` each.
fn texts() -> Vec<(String, String)> {
    if let Ok(path) = std::env::var("CRONVEC_CORPUS") {
        let lines = std::fs::read_to_string(path).unwrap();
        let record = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| record[name].as_str().unwrap().to_owned();
            (field("id"), field("content"))
        };
        return lines.lines().map(record).collect();
    }
    let whats = [
        "a game",
        "a library",
        "mail",
        "maps",
        "music",
        "photos",
        "stars",
        "the clock",
        "spelling",
        "roads",
    ];
    let hows = [
        "for children",
        "on the command line",
        "in a window",
        "of old towns",
        "for small computers",
        "in colour",
    ];
    let mut all = Vec::new();
    for (n, what) in whats.iter().enumerate() {
        for (m, how) in hows.iter().enumerate() {
            for more in 0..5 {
                let text = format!(
                    "{what} {how}, with {} and {}",
                    whats[(n + more + 1) % 10],
                    hows[(m + more) % 6]
                );
                // Every fifth is longer than a chunk.
                let repeated = if more == 4 { vec![text; 60].join(". ") } else { text };
                all.push((format!("{n}-{m}-{more}"), repeated));
            }
        }
    }
    all
}

#[tokio::test]
async fn ten_questions_find_exactly_the_ten_nearest_of_all() {
    let system = System::embedding_in_process().await;
    for some in texts().chunks(5_000) {
        let (ids, contents): (Vec<&str>, Vec<&str>) =
            some.iter().map(|(id, text)| (id.as_str(), text.as_str())).unzip();
        system
            .sql
            .query_typed(
                "SELECT count(cronvec.put_record('articles', id, content)) FROM unnest($1, $2) AS i (id, content)",
                &[(&ids, Type::TEXT_ARRAY), (&contents, Type::TEXT_ARRAY)],
            )
            .await
            .unwrap();
    }
    assert!(!system.vectorize().await.remaining);
    system.run_sql("SET statement_timeout = 0; ANALYZE").await;
    let rows = system
        .sql
        .query_typed(
            "SELECT record_id, embedding::real[] FROM cronvec.embeddings WHERE project = 'articles'",
            &[],
        )
        .await
        .unwrap();
    let chunks: Vec<(String, Vec<f32>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(chunks.len() > 300, "some texts have several chunks");

    let spec = &system.settings.embedding.new_space;
    let provider = pipeline::provider(spec, &system.settings.embedding, &Secrets::without_aws())
        .await
        .unwrap();
    let timeout = Timeout {
        limit: std::time::Duration::from_secs(30),
        ours: false,
    };
    for question in QUESTIONS {
        let mut answer = provider.embed(&[question], Purpose::Query, timeout).await.unwrap();
        let question = answer.vectors.pop().unwrap().unwrap();
        let mut best: HashMap<&str, f64> = HashMap::new();
        for (id, vector) in &chunks {
            let score = cosine(&question, vector);
            let before = best.entry(id).or_insert(score);
            *before = before.max(score);
        }
        let mut nearest: Vec<(&str, f64)> = best.into_iter().collect();
        nearest.sort_by(|one, other| other.1.total_cmp(&one.1));

        let live = system.store.project(PROJECT).await.unwrap().live_space;
        let hits = system
            .store
            .search(PROJECT, live, &question.into(), 10, None)
            .await
            .unwrap();
        assert_eq!(hits.len(), 10);
        for (hit, (_, score)) in hits.iter().zip(&nearest) {
            assert!(
                (hit.score - score).abs() < 1e-6,
                "{} has {}, the nearest {score}",
                hit.id,
                hit.score
            );
        }
        // Those that are as near as the tenth may stand for each other.
        let tenth = nearest[9].1 - 1e-6;
        for hit in &hits {
            assert!(
                nearest.iter().any(|(id, score)| *id == hit.id && *score >= tenth),
                "{} is near",
                hit.id
            );
        }
    }
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let sum =
        |pairs: &mut dyn Iterator<Item = (f32, f32)>| pairs.map(|(a, b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let dot = sum(&mut one.iter().copied().zip(other.iter().copied()));
    let length = |vector: &[f32]| sum(&mut vector.iter().copied().zip(vector.iter().copied())).sqrt();
    dot / (length(one) * length(other))
}

/// What a search reads is the space that it was given, and none that the project doesn't have.
#[tokio::test]
async fn a_search_reads_the_space_that_it_is_given() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "a game with cards").await;
    system.vectorize().await;
    let live = system.store.project(PROJECT).await.unwrap().live_space;
    let mut other = system.settings.embedding.new_space.clone();
    other.chunk_tokens /= 2;
    let next = system.store.ensure_space(&other).await.unwrap().id;
    let question = vec![0.1_f32; 256];
    let found = async |space| {
        system
            .store
            .search(PROJECT, space, &question.clone().into(), 10, None)
            .await
    };
    let error = found(next).await.unwrap_err().to_string();
    assert!(error.contains("has no space"), "{error}");
    system
        .run_sql(&format!(
            "INSERT INTO cronvec.project_spaces (project_id, space_id, role) SELECT id, {next}, 'next' FROM cronvec.projects"
        ))
        .await;
    assert_eq!(found(live).await.unwrap().len(), 1);
    assert_eq!(found(next).await.unwrap().len(), 0, "nothing is embedded there yet");
}

/// Whoever writes a record marks it where the project is searched and where it is filled, and in no former space.
#[tokio::test]
async fn each_writer_marks_the_live_and_the_next_space_and_no_former_one() {
    let system = System::embedding_in_process().await;
    for (role, tokens) in [("next", 64), ("previous", 32)] {
        let mut other = system.settings.embedding.new_space.clone();
        other.chunk_tokens = tokens;
        let space = system.store.ensure_space(&other).await.unwrap().id;
        system
            .run_sql(&format!(
                "INSERT INTO cronvec.project_spaces (project_id, space_id, role)
                 SELECT id, {space}, '{role}' FROM cronvec.projects"
            ))
            .await;
    }
    let marked = async || {
        let roles = "SELECT coalesce(jsonb_agg(DISTINCT w.record_id || ' ' || s.role), '[]') FROM cronvec.pending w
            JOIN cronvec.project_spaces s ON s.project_id = w.project_id AND s.space_id = w.space_id";
        let roles = system.value(roles).await;
        system.run_sql("DELETE FROM cronvec.pending").await;
        roles
    };
    system.put(PROJECT, "put", "a text").await;
    assert_eq!(marked().await, serde_json::json!(["put live", "put next"]));
    system
        .enqueue(PROJECT, &[record("file", "a text")], EnqueueOptions::default())
        .await;
    system.ingest().await;
    assert_eq!(marked().await, serde_json::json!(["file live", "file next"]));
    system.run_sql("SELECT cronvec.delete_record('articles', 'put')").await;
    assert_eq!(marked().await, serde_json::json!(["put live", "put next"]));
}
