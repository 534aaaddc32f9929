//! Vectors that a table has already: compared with what the model gives their texts before they are adopted.

use cronvec_tests::process::Outcome;
use cronvec_tests::provider::{Answer, Provider, vector};
use cronvec_tests::system::System;
use serde_json::json;

use super::{Cli, DONE, USAGE};

const MODEL: &str = "text-embedding-3-small";

/// Notes with the vectors that somebody made of some texts: of these, row by row.
async fn notes(system: &System, rows: u32, made_of: impl Fn(u32) -> String) {
    let values: Vec<String> = (1..=rows)
        .map(|n| format!("({n}, 'note {n}', '{:?}')", vector(&made_of(n), 16)))
        .collect();
    system
        .run_sql(&format!(
            "CREATE TABLE public.notes (id int PRIMARY KEY, body text, embedding vector(16)); INSERT INTO notes VALUES {}",
            values.join(", ")
        ))
        .await;
}

async fn attach(cli: &Cli, more: &str) -> Outcome {
    cli.run(&format!(
        "attach notes --text body --embedding-column embedding --adopt-existing {MODEL} --yes {more}"
    ))
    .await
}

fn assert_says(outcome: &Outcome, code: i32, said: &[&str]) {
    assert_eq!(outcome.code(), Some(code), "{outcome:?}");
    let all = format!("{}\n{}", outcome.stdout, outcome.stderr);
    for words in said {
        assert!(all.contains(words), "{words}: {all}");
    }
}

async fn attached(system: &System) -> i64 {
    system.count("SELECT count(*) FROM cronvec.sources").await
}

#[tokio::test]
async fn the_models_own_vectors_are_adopted_after_twenty_were_compared_and_none_is_made_anew() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    notes(&system, 300, |n| format!("note {n}")).await;
    let outcome = attach(&cli, "--json").await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let told: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(told["adopted"], 300, "{told}");
    assert_eq!(
        told["adoption"],
        json!({
            "compared": 20, "unlike": 0, "medianCosine": 1.0, "lowestCosine": 1.0, "texts": 300, "longerThanAChunk": 0,
            "chunkTokens": 512
        })
    );
    let log = provider.log();
    assert_eq!((log.inputs(), log.counts.len()), (20, 20), "twenty texts, each once");
    cli.object("tick vectorization").await;
    assert_eq!(provider.inputs(), 20);
    assert_eq!(cli.object("coverage --project notes").await["percent"], 100.0);
}

#[tokio::test]
async fn vectors_of_another_model_are_refused_with_figures_and_causes_unless_they_are_forced() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    notes(&system, 40, |n| format!("of another model {n}")).await;
    let outcome = attach(&cli, "").await;
    assert_says(
        &outcome,
        USAGE,
        &[
            "20 of 20 that were compared have a cosine below 0.98",
            "median",
            "another model",
            "EMBEDDING_DOCUMENT_PREFIX",
            "--text",
            "only the beginning",
            "--force-adopt",
        ],
    );
    assert_eq!(attached(&system).await, 0);
    let left = "SELECT count(*) FROM pg_proc WHERE proname ~ '^source_[0-9]'";
    assert_eq!(system.count(left).await, 0, "nothing is left behind");
    let project = "SELECT count(*) FROM cronvec.projects WHERE name = 'notes'";
    assert_eq!(system.count(project).await, 0);
    assert_says(
        &attach(&cli, "--force-adopt").await,
        DONE,
        &["40 rows have their vectors already"],
    );
    assert_eq!(provider.inputs(), 20, "who forces them pays for no sample");
}

#[tokio::test]
async fn a_handful_of_rows_is_enough_and_some_vectors_may_be_of_former_texts() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    let mixed = |wrong: u32| {
        move |n: u32| {
            if n <= wrong {
                format!("before {n}")
            } else {
                format!("note {n}")
            }
        }
    };
    notes(&system, 5, mixed(2)).await;
    assert_says(&attach(&cli, "").await, USAGE, &["2 of 5 that were compared"]);
    system.run_sql("DROP TABLE notes").await;
    notes(&system, 5, mixed(1)).await;
    // Neither NULL nor zeros nor a row without text is somebody's vector.
    system
        .run_sql(
            "INSERT INTO notes VALUES (6, 'note 6', NULL), (7, 'note 7', array_fill(0, ARRAY[16])::vector),
                 (8, ' ', array_fill(1, ARRAY[16])::vector)",
        )
        .await;
    assert_says(
        &attach(&cli, "").await,
        DONE,
        &["1 of 5 that were compared", "empty their column before"],
    );
    assert_eq!(provider.inputs(), 10);
}

#[tokio::test]
async fn where_there_are_no_vectors_nobody_is_asked() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    notes(&system, 5, |n| n.to_string()).await;
    system.run_sql("UPDATE notes SET embedding = NULL").await;
    assert_says(&attach(&cli, "").await, DONE, &["5 rows to embed"]);
    assert_eq!(provider.inputs(), 0);
}

#[tokio::test]
async fn texts_that_are_longer_than_a_chunk_are_counted_and_compared_whole() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider).with("EMBEDDING_CHUNK_TOKENS", "16");
    let text = |n: u32| match n {
        1..=3 => format!("note {n}, {}", "which goes on and on ".repeat(20).trim()),
        _ => format!("note {n}"),
    };
    notes(&system, 12, text).await;
    for n in 1..=3 {
        system
            .run_sql(&format!("UPDATE notes SET body = '{}' WHERE id = {n}", text(n)))
            .await;
    }
    let said = "3 of 12 texts that were looked at are longer than a chunk of 16 tokens";
    assert_says(&attach(&cli, "").await, DONE, &[said, "12 vectors were compared"]);
    assert_eq!(provider.log().count(&text(1)), 1, "as whoever made its vector sent it");
}

#[tokio::test]
async fn where_no_sample_can_be_embedded_it_is_said_what_to_do() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    notes(&system, 5, |n| format!("note {n}")).await;
    provider.answer_when(|_| true, Answer::error(401, "invalid_api_key", "no such key"));
    let said = ["nobody knows", "no such key", "--force-adopt"];
    assert_says(&attach(&cli, "").await, USAGE, &said);
    // The project is OpenAI's, and these settings are another's and have no key for it.
    cli.object("projects create notes").await;
    let elsewhere = Cli::at(system.database.url());
    let said = ["nobody knows", "openai", "key", "--force-adopt"];
    assert_says(&attach(&elsewhere, "").await, USAGE, &said);
    assert_eq!(attached(&system).await, 0);
    assert_says(
        &attach(&elsewhere, "--force-adopt").await,
        DONE,
        &["5 rows have their vectors already"],
    );
}

#[tokio::test]
async fn one_text_that_the_model_refuses_spoils_no_comparison() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    notes(&system, 9, |n| format!("note {n}")).await;
    provider.answer_containing("note 4", Answer::rejected());
    assert_says(&attach(&cli, "").await, DONE, &["8 vectors were compared"]);
}

#[tokio::test]
async fn of_a_large_partitioned_table_of_another_owner_a_part_is_looked_at() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    let right = format!("{:?}", vector("the same", 16));
    let owner = format!("owner_{}", system.database.name());
    // A row a block: more blocks than are looked at.
    system
        .run_sql(&format!(
            "CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner};
             CREATE TABLE public.notes (id int PRIMARY KEY, body text, ballast text, embedding vector(16)) PARTITION BY RANGE (id);
             CREATE TABLE public.one PARTITION OF notes FOR VALUES FROM (0) TO (1500) WITH (fillfactor = 10);
             CREATE TABLE public.two PARTITION OF notes FOR VALUES FROM (1500) TO (10000) WITH (fillfactor = 10);
             RESET ROLE;
             INSERT INTO notes SELECT n, 'the same', repeat('x', 1000), '{right}' FROM generate_series(1, 3000) AS n"
        ))
        .await;
    let outcome = attach(&cli, "--json").await;
    system
        .run_sql(&format!("DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}"))
        .await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let told: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (&told["adoption"]["compared"], &told["adopted"]),
        (&json!(20), &json!(3_000)),
        "{told}"
    );
}
