//! The vectors in the table's own column.

use cronvec_call::CallOptions;
use cronvec_store::sources::NewSource;
use cronvec_tests::between::Transaction;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System, minute};
use serde_json::json;

use super::{articles, attach, reconcile, waiting};

/// A job board: columns that must not be null, and a column for vectors of which a fifth is full.
async fn jobs(system: &System, rows: u32) {
    system
        .run_sql(&format!(
            "CREATE TABLE public.jobs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL, company text NOT NULL,
                 posted timestamptz NOT NULL DEFAULT now(), salary int NOT NULL, embedding vector(8));
             INSERT INTO jobs (title, company, salary, embedding)
             SELECT 'job ' || n, 'company ' || n, n, CASE n % 5 WHEN 0 THEN array_fill(n, ARRAY[8])::vector END
             FROM generate_series(1, {rows}) AS n"
        ))
        .await;
}

fn board() -> NewSource<'static> {
    NewSource {
        table: "jobs",
        text: "title, company",
        embedding_column: Some("embedding"),
        ..articles()
    }
}

/// Of each row everything but the vector, and where it stands.
const CHECKSUM: &str = "SELECT md5(string_agg((to_jsonb(j) - 'embedding')::text, '' ORDER BY id)) FROM jobs j";
/// Rows whose vector is their text's, of those that are to have one.
const RIGHT: &str =
    "SELECT count(*) FROM jobs j JOIN cronvec.embeddings e ON e.record_id = j.id::text AND e.ordinal = 0
    AND NOT e.stale AND e.embedding = j.embedding AND e.content LIKE j.title || '%'";

#[tokio::test]
async fn vectors_that_are_there_are_adopted_the_others_are_written_and_no_other_column_is_touched() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    jobs(&system, 200).await;
    system
        .run_sql("UPDATE jobs SET embedding = array_fill(0, ARRAY[8])::vector WHERE id = 5")
        .await;
    let before = system.value(CHECKSUM).await;
    let new = NewSource {
        adopt: Some(&system.settings.embedding.new_space.model),
        ..board()
    };
    let source = attach(&system, &new).await.unwrap();
    assert_eq!(
        (
            source.phase.as_str(),
            system.store.source(PROJECT).await.unwrap().adopted
        ),
        ("rows", 39)
    );
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.pending), (200, 39, 161));

    // Killed in the middle: what it wrote stays, and the next one goes on.
    let options = CallOptions {
        max_records: Some(60),
        ..CallOptions::default()
    };
    assert_eq!(system.vectorize_with(options, minute()).await.records, 60);
    assert_eq!(system.count(RIGHT).await, 99);
    assert_eq!(system.vectorize().await.records, 101);
    assert_eq!(system.count(RIGHT).await, 200);
    assert_eq!(system.store.coverage(PROJECT).await.unwrap().percent.to_string(), "100");
    assert_eq!(system.value(CHECKSUM).await, before);
    assert_eq!(waiting(&system).await, json!([]), "our own writes changed no text");
    let adopted = "SELECT embedding::text FROM jobs WHERE id = 10";
    assert_eq!(system.value(adopted).await, "[10,10,10,10,10,10,10,10]", "as it was");
}

#[tokio::test]
async fn a_changed_text_keeps_its_vector_until_the_new_one_is_there_or_loses_it_at_once() {
    let provider = Provider::start().await;
    for forgets in [false, true] {
        let system = System::embedding_with(&provider, 8).await;
        jobs(&system, 3).await;
        let new = NewSource { forgets, ..board() };
        attach(&system, &new).await.unwrap();
        system.vectorize().await;
        system
            .run_sql("UPDATE jobs SET salary = 0; UPDATE jobs SET company = 'another' WHERE id = 1")
            .await;
        let kept = system.count("SELECT count(embedding) FROM jobs").await;
        assert_eq!(kept, if forgets { 2 } else { 3 });
        assert_eq!(system.vectorize().await.records, 1);
        assert_eq!(system.count(RIGHT).await, 3);
        // Changed and back again: the vector is there at no cost.
        system
            .run_sql("UPDATE jobs SET title = 'x' WHERE id = 2; UPDATE jobs SET title = 'job 2' WHERE id = 2")
            .await;
        assert_eq!(system.vectorize().await.requests, 0);
        assert_eq!(system.count(RIGHT).await, 3);
    }
}

#[tokio::test]
async fn a_row_in_a_users_hands_is_left_and_keeps_no_worker_and_none_of_its_neighbours() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    jobs(&system, 20).await;
    attach(&system, &board()).await.unwrap();
    let user = Transaction::begin(&system).await;
    user.run("SELECT FROM jobs WHERE id = 7 FOR UPDATE").await;
    let report = tokio::time::timeout(std::time::Duration::from_secs(10), system.vectorize())
        .await
        .expect("the worker waits for nobody");
    assert_eq!((report.records, report.passed_over), (19, 1));
    assert_eq!(waiting(&system).await, json!(["7"]));
    let put_off = "SELECT count(*) FROM cronvec.pending WHERE not_before > now()";
    assert_eq!(system.count(put_off).await, 1);
    user.commit().await;
    system.run_sql("UPDATE cronvec.pending SET not_before = now()").await;
    assert_eq!(system.vectorize().await.records, 1);
    assert_eq!(system.count(RIGHT).await, 20);
}

#[tokio::test]
async fn an_emptied_column_is_filled_again_from_what_is_stored() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    jobs(&system, 10).await;
    let source = attach(&system, &board()).await.unwrap();
    system.vectorize().await;
    let before = system.value(CHECKSUM).await;
    system.run_sql("UPDATE jobs SET embedding = NULL").await;
    assert_eq!(reconcile(&system, &source).await.changed, 0);
    assert_eq!(system.count(RIGHT).await, 10);
    assert_eq!(system.value(CHECKSUM).await, before);
}

#[tokio::test]
async fn of_a_long_text_the_first_chunks_vector_stands_in_the_column() {
    let provider = Provider::start().await;
    let system = System::embedding_as(&provider, 8, &[("EMBEDDING_CHUNK_TOKENS", "16")]).await;
    jobs(&system, 1).await;
    attach(&system, &board()).await.unwrap();
    system
        .run_sql("UPDATE jobs SET company = repeat('a long description of a company ', 20)")
        .await;
    system.vectorize().await;
    assert!(system.count("SELECT count(*) FROM cronvec.embeddings").await > 3);
    assert_eq!(system.count(RIGHT).await, 1);
}

#[tokio::test]
async fn while_the_database_is_slow_to_store_no_more_is_asked_for_than_can_be_in_flight_twice() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    jobs(&system, 2_000).await;
    attach(&system, &board()).await.unwrap();
    let gate = provider.hold();
    let worker = system.vectorization();
    let working = worker.run(CallOptions::default(), minute());
    let watching = async {
        provider.wait_open(4).await;
        let user = Transaction::holding_jobs(&system).await;
        gate.release();
        system.wait_blocked(1).await;
        // Four requests of 25 texts, and as many answers that wait. Looked at so often that more would have come.
        for _ in 0..200 {
            system.count("SELECT count(*) FROM cronvec.pending").await;
            assert!(provider.inputs() <= 200, "{}", provider.inputs());
        }
        user.commit().await;
    };
    let (report, ()) = tokio::join!(working, watching);
    assert_eq!(report.unwrap().records, 2_000);
    assert_eq!((system.count(RIGHT).await, provider.inputs()), (2_000, 2_000));
}
