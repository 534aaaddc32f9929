//! Rows that refuse their vector: they cost themselves, and nobody else.

use cronvec_store::sources::{NewSource, Source};
use cronvec_tests::between::Transaction;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::{articles, attach, reconcile, waiting};

/// Advertisements, one of which has a price that the table forbids by now.
async fn ads(system: &System, rows: u32) {
    system
        .run_sql(&format!(
            "CREATE TABLE public.ads (id int PRIMARY KEY, title text NOT NULL, price int NOT NULL, embedding vector(8));
             INSERT INTO ads SELECT n, 'ad ' || n, CASE n WHEN 7 THEN -1 ELSE n END FROM generate_series(1, {rows}) AS n"
        ))
        .await;
}

const FORBIDDEN: &str = "ALTER TABLE ads ADD CONSTRAINT ads_price CHECK (price >= 0) NOT VALID";

async fn attached(system: &System) -> Source {
    let new = NewSource {
        table: "ads",
        text: "title",
        embedding_column: Some("embedding"),
        ..articles()
    };
    attach(system, &new).await.unwrap()
}

/// Those that stand aside, each with the reason and what was said.
async fn aside(system: &System) -> Value {
    system
        .value(
            "SELECT coalesce(jsonb_agg(ARRAY[record_id, reason, message] ORDER BY record_id COLLATE \"C\"), '[]')
             FROM cronvec.quarantine",
        )
        .await
}

const EMPTY: &str = "SELECT coalesce(jsonb_agg(id ORDER BY id), '[]') FROM ads WHERE embedding IS NULL";
/// Rows whose vector is their text's.
const RIGHT: &str = "SELECT count(*) FROM ads a JOIN cronvec.embeddings e ON e.record_id = a.id::text
    AND NOT e.stale AND e.embedding = a.embedding AND e.content = a.title";

#[tokio::test]
async fn a_row_that_refuses_its_vector_stands_aside_with_what_the_server_said_and_is_found_all_the_same() {
    let said = "new row for relation \"ads\" violates check constraint \"ads_price\" (23514)";
    let raises = "archived rows stay as they are (P0001)";
    for (wrong, message) in [
        (FORBIDDEN, said),
        (
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF OLD.id = 7 THEN RAISE EXCEPTION 'archived rows stay as they are'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER never BEFORE UPDATE ON ads FOR EACH ROW EXECUTE FUNCTION never()",
            raises,
        ),
        (
            // Only when the transaction ends.
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF OLD.id = 7 THEN RAISE EXCEPTION 'archived rows stay as they are'; END IF; RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER never AFTER UPDATE ON ads DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION never()",
            raises,
        ),
        (
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF OLD.id = 7 THEN INSERT INTO public.ads VALUES (1, 'again', 1); END IF; RETURN NEW; END $$;
             CREATE TRIGGER never BEFORE UPDATE ON ads FOR EACH ROW EXECUTE FUNCTION never()",
            "duplicate key value violates unique constraint \"ads_pkey\" (23505)",
        ),
    ] {
        let provider = Provider::start().await;
        let system = System::embedding_with(&provider, 8).await;
        ads(&system, 300).await;
        system.run_sql(wrong).await;
        let source = attached(&system).await;
        let report = system.vectorize().await;
        assert_eq!(
            (report.records, report.failed, report.quarantined),
            (300, 0, 1),
            "{wrong}: {report:?}"
        );
        assert_eq!(
            aside(&system).await,
            json!([["7", "column_refused", message]]),
            "{wrong}"
        );
        assert_eq!(system.value(EMPTY).await, json!([7]), "{wrong}");
        assert_eq!(system.count(RIGHT).await, 299, "{wrong}");
        let coverage = system.store.coverage(PROJECT).await.unwrap();
        assert_eq!(
            (coverage.total, coverage.embedded, coverage.quarantined),
            (300, 300, 1),
            "{wrong}"
        );
        let found = "SELECT count(*) FROM cronvec.embeddings WHERE record_id = '7' AND NOT stale";
        assert_eq!(system.count(found).await, 1, "{wrong}");
        assert_eq!((waiting(&system).await, provider.inputs()), (json!([]), 300), "{wrong}");
        // Neither the next tick nor the next comparison tries it again.
        let after = reconcile(&system, &source).await;
        assert_eq!((after.trouble, waiting(&system).await), (None, json!([])), "{wrong}");
        assert_eq!(system.vectorize().await.quarantined, 0, "{wrong}");
        assert_eq!(provider.inputs(), 300, "{wrong}");
    }
}

#[tokio::test]
async fn a_refused_row_is_tried_again_when_its_text_changes_when_it_is_replayed_and_after_a_while() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    ads(&system, 10).await;
    system.run_sql(FORBIDDEN).await;
    let source = attached(&system).await;
    system.vectorize().await;

    // By its text.
    system
        .run_sql("UPDATE ads SET price = 7, title = 'another' WHERE id = 7")
        .await;
    assert_eq!(aside(&system).await, json!([]));
    system.vectorize().await;
    assert_eq!(system.count(RIGHT).await, 10);

    // By a replay: in vain, then not.
    let refuse_anew = async || {
        system
            .run_sql(
                "ALTER TABLE ads DROP CONSTRAINT ads_price; ALTER TABLE ads DISABLE TRIGGER USER;
                 UPDATE ads SET embedding = NULL, price = CASE id WHEN 7 THEN -1 ELSE price END WHERE id IN (3, 7);
                 ALTER TABLE ads ENABLE TRIGGER USER",
            )
            .await;
        system.run_sql(FORBIDDEN).await;
    };
    refuse_anew().await;
    // The comparison's own filling meets it, loses nothing by it, and leaves the rows to a worker.
    let after = reconcile(&system, &source).await;
    assert_eq!((after.trouble, waiting(&system).await), (None, json!(["3", "7"])));
    let asked = provider.inputs();
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (2, 1), "{report:?}");
    assert_eq!((system.value(EMPTY).await, provider.inputs()), (json!([7]), asked));
    let replay = async || {
        let filter = cronvec_store::quarantine::QuarantineFilter {
            reason: Some("column_refused".into()),
            ..Default::default()
        };
        system.store.replay_page(&filter, None, 0, 100).await.unwrap()
    };
    assert_eq!(replay().await, ["7"]);
    system.vectorize().await;
    assert_eq!(aside(&system).await[0][1], "column_refused");
    system.run_sql("UPDATE ads SET price = 7 WHERE id = 7").await;
    assert_eq!(replay().await, ["7"]);
    system.vectorize().await;
    assert_eq!((system.count(RIGHT).await, aside(&system).await), (10, json!([])));

    // By a comparison, when it is long ago.
    refuse_anew().await;
    reconcile(&system, &source).await;
    system.vectorize().await;
    system.run_sql("UPDATE ads SET price = 7 WHERE id = 7").await;
    reconcile(&system, &source).await;
    assert_eq!(system.value(EMPTY).await, json!([7]), "it is too early");
    system
        .run_sql("UPDATE cronvec.quarantined_records SET last_attempt_at = now() - interval '11 minutes'")
        .await;
    reconcile(&system, &source).await;
    assert_eq!(
        (system.value(EMPTY).await, aside(&system).await),
        (json!([]), json!([]))
    );
    assert_eq!(provider.inputs(), asked, "nothing was paid twice");
}

#[tokio::test]
async fn a_table_all_of_whose_rows_refuse_is_embedded_and_found_and_detaching_forgets_why() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    ads(&system, 60).await;
    system
        .run_sql("ALTER TABLE ads ADD CONSTRAINT never CHECK (embedding IS NULL)")
        .await;
    let source = attached(&system).await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (60, 60), "{report:?}");
    assert_eq!(provider.inputs(), 60);
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.quarantined), (60, 60, 60));
    // Twice in vain: it waits for twice as long.
    system
        .run_sql("UPDATE cronvec.quarantined_records SET last_attempt_at = now() - interval '11 minutes'")
        .await;
    reconcile(&system, &source).await;
    assert_eq!(system.vectorize().await.quarantined, 60);
    assert_eq!(
        system
            .count("SELECT min(attempts)::bigint FROM cronvec.quarantine")
            .await,
        2
    );
    system
        .run_sql("UPDATE cronvec.quarantined_records SET last_attempt_at = now() - interval '11 minutes'")
        .await;
    reconcile(&system, &source).await;
    assert_eq!(waiting(&system).await, json!([]));
    system.store.detach(&source).await.unwrap();
    assert_eq!(aside(&system).await, json!([]));
}

#[tokio::test]
async fn a_row_that_others_keep_from_its_vector_has_not_refused_it() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    ads(&system, 20).await;
    system
        .run_sql(
            "CREATE TABLE public.prices (id int PRIMARY KEY); INSERT INTO prices VALUES (7);
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM FROM public.prices WHERE id = OLD.id FOR UPDATE NOWAIT; RETURN NEW; END $$;
             CREATE TRIGGER look BEFORE UPDATE ON ads FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .await;
    attached(&system).await;
    let user = Transaction::begin(&system).await;
    user.run("SELECT FROM prices FOR UPDATE").await;
    let report = system.vectorize().await;
    assert_eq!(
        (report.records, report.quarantined, report.passed_over),
        (19, 0, 1),
        "{report:?}"
    );
    assert_eq!(
        (aside(&system).await, waiting(&system).await),
        (json!([]), json!(["7"]))
    );
    user.commit().await;
    system.run_sql("UPDATE cronvec.pending SET not_before = now()").await;
    assert_eq!(system.vectorize().await.records, 1);
    assert_eq!((system.count(RIGHT).await, provider.inputs()), (20, 20));
}

#[tokio::test]
async fn what_our_own_tables_refuse_is_no_rows_fault() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    ads(&system, 3).await;
    attached(&system).await;
    system
        .run_sql("ALTER TABLE cronvec.chunks_1 ADD CONSTRAINT ours CHECK (ordinal < 0)")
        .await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (0, 0), "{report:?}");
    let error = system
        .value("SELECT result->>'error' FROM cronvec.job_queue WHERE job_type = 'VECTORIZE'")
        .await;
    assert!(error.as_str().unwrap().contains("ours"), "{error}");
    assert_eq!(
        (aside(&system).await, waiting(&system).await),
        (json!([]), json!(["1", "2", "3"]))
    );
}
