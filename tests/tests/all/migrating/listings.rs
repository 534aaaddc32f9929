//! Listings with a vector column, a fifth of it filled.
//!
//! At full size: `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all migrating::listings -- --nocapture --test-threads 1`

use std::time::Duration;

use cronvec_tests::conditions::eventually;
use cronvec_tests::full_size;
use cronvec_tests::provider::{self, Options, Provider};
use cronvec_tests::skipped;
use serde_json::Value;

use super::{Reader, says};

/// Of all rows and of those that have a vector.
const FULL: (u32, u32) = (32_322, 7_051);

const FILLED: &str = "SELECT count(embedding) FROM ads";
const TRIGGERS: &str =
    "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'ads'::regclass AND tgname LIKE '%cronvec%' AND NOT tgisinternal";

/// A provider that is never the bottleneck, but for this.
async fn instant(latency: Duration) -> Provider {
    let options = Options {
        dimensions: 1536,
        instant: true,
        latency,
        ..Options::default()
    };
    Provider::with(options).await
}

/// The guide's schema; of `rows` texts, none like another, the first `filled` have a vector.
async fn ads(provider: &Provider, (rows, filled): (u32, u32)) -> Reader {
    let reader = Reader::with(provider).await;
    reader.says("listings: schema").await;
    let fill = format!(
        "INSERT INTO ads (title, company, description, location, salary, embedding)
         SELECT 'Job ' || n, 'Company ' || n % 900, repeat('What one does there all day, number ' || n || '. ', 12) || 'Apply now.',
             'Town ' || n % 300, n,
             CASE WHEN n <= {filled} THEN (SELECT array_agg(sin(n * 1.7 + i))::vector FROM generate_series(1, 1536) AS i) END
         FROM generate_series(1, {rows}) AS n"
    );
    reader.sql.batch_execute(&fill).await.unwrap();
    reader
}

/// The vector of a row is its own text's.
async fn assert_right(reader: &Reader, id: u32) {
    let row = format!("SELECT concat_ws(E'\\n\\n', title, company, description), embedding FROM ads WHERE id = {id}");
    let row = says(&reader.sql, &format!("{row};")).await.remove(0);
    let (text, stored) = (row[0].as_deref().unwrap(), row[1].as_deref().unwrap());
    let stored: Vec<f32> = serde_json::from_str(stored).unwrap();
    let right = provider::vector(text, 1536);
    let distance: f32 = stored.iter().zip(&right).map(|(a, b)| (a - b).abs()).sum();
    assert!(stored.len() == 1536 && distance < 1e-2, "{id}: {distance}");
}

/// The first rows' vectors are what the model gives their texts.
async fn with_vectors_of_the_model(reader: &Reader, filled: u32) {
    let texts = format!("SELECT id, concat_ws(E'\\n\\n', title, company, description) FROM ads WHERE id <= {filled};");
    for row in says(&reader.sql, &texts).await {
        let (id, text) = (row[0].as_deref().unwrap(), row[1].as_deref().unwrap());
        let vector = provider::vector(text, 1536);
        says(
            &reader.sql,
            &format!("UPDATE ads SET embedding = '{vector:?}' WHERE id = {id};"),
        )
        .await;
    }
}

/// A provider that knows no text has no vectors to compare with.
fn adopts_unchecked(reader: &mut Reader) {
    let adopt = "--adopt-existing text-embedding-3-small";
    reader.calls(adopt, &format!("{adopt} --force-adopt"));
}

#[tokio::test]
async fn a_table_of_listings_is_tried_attached_filled_and_let_go_as_the_guide_says() {
    let provider = Provider::start().await;
    let reader = ads(&provider, (400, 80)).await;
    with_vectors_of_the_model(&reader, 80).await;
    let said = reader.runs("listings: trial").await.stdout;
    assert!(said.contains("100.0"), "{said}");
    assert_eq!(
        (reader.count(FILLED).await, reader.count(TRIGGERS).await),
        (80, 0),
        "a trial leaves nothing at the table"
    );

    let before = reader.says("listings: checksum").await;
    let adopted = "SELECT md5(string_agg(embedding::text, '' ORDER BY id)) FROM ads WHERE id <= 80;";
    let adopted_before = says(&reader.sql, adopted).await;
    reader.runs("listings: attach").await;
    assert_eq!(reader.coverage("ads").await, (400, 80, 20.0));
    let said = reader.runs("listings: backfill").await.stdout;
    assert!(said.contains("finished: 320 embedded"), "{said}");
    assert_eq!(reader.coverage("ads").await, (400, 400, 100.0));
    assert_eq!(reader.says("listings: checksum").await, before, "no other column");
    assert_eq!(says(&reader.sql, adopted).await, adopted_before);
    assert!(reader.says("listings: missing").await.is_empty());
    assert_right(&reader, 81).await;
    assert_right(&reader, 400).await;
    assert_eq!(
        provider.inputs(),
        100 + 1 + 20 + 320,
        "a trial with one question, a sample of what is adopted, and each text once"
    );

    reader.says("listings: clear away").await;
    let write = "UPDATE ads SET company = 'Another' WHERE id = 7;
        INSERT INTO ads (title, company, description, location, salary) VALUES ('New', 'New', 'New', 'New', 1);";
    says(&reader.sql, write).await;
    assert_eq!(reader.object("tick vectorization").await["records"], 2);
    assert_right(&reader, 7).await;
    reader.says("listings: index").await;

    reader.runs("listings: go back").await;
    assert_eq!(
        (
            reader.count(FILLED).await,
            reader.count(TRIGGERS).await,
            reader
                .count("SELECT count(*) FROM pg_namespace WHERE nspname = 'cronvec'")
                .await
        ),
        (401, 0, 0)
    );
}

#[tokio::test]
async fn an_index_over_the_column_is_told_of_before_it_is_filled_and_offered_to_be_built_afterwards() {
    let provider = Provider::start().await;
    let reader = ads(&provider, (30, 6)).await;
    reader.says("listings: index").await;
    // It has nothing to do with vectors, though it is about the column.
    says(&reader.sql, "CREATE INDEX empty ON ads (id) WHERE embedding IS NULL;").await;
    reader.run("cronvec migrate up").await;
    let attach = "cronvec attach ads --text title --embedding-column embedding --yes";
    let said = reader.run(attach).await;
    let (drop, create) = (
        "DROP INDEX CONCURRENTLY public.ads_embedding_idx",
        "CREATE INDEX CONCURRENTLY ads_embedding_idx ON public.ads USING hnsw (embedding vector_cosine_ops)",
    );
    assert!(said.stdout.contains(drop) && said.stdout.contains(create), "{said:?}");
    let estimate = reader.object("backfill --dry-run").await;
    let indexes = estimate["columnIndexes"]["indexes"].as_array().unwrap();
    assert_eq!(indexes.len(), 1, "{estimate}");
    assert_eq!(
        (&indexes[0]["method"], &indexes[0]["drop"], &indexes[0]["create"]),
        (&"hnsw".into(), &drop.into(), &create.into())
    );
    says(&reader.sql, &format!("{drop};")).await;
    let said = reader.run("cronvec backfill --yes").await;
    let offered = said.stderr.lines().find_map(|line| line.trim().strip_prefix("CREATE"));
    says(
        &reader.sql,
        &format!("CREATE{}", offered.unwrap_or_else(|| panic!("{said:?}"))),
    )
    .await;
    let there = "SELECT count(*) FROM pg_indexes WHERE tablename = 'ads' AND indexdef LIKE '%hnsw%'";
    assert_eq!(reader.count(there).await, 1);
    let said = reader.run(&format!("cronvec detach ads --yes; {attach}")).await;
    assert!(said.stdout.contains("(hnsw)"), "{said:?}");
}

#[tokio::test]
async fn of_a_partitioned_table_the_index_is_built_as_one() {
    let provider = Provider::start().await;
    let reader = Reader::with(&provider).await;
    let schema = "CREATE TABLE ads (id int PRIMARY KEY, title text, embedding vector(1536)) PARTITION BY RANGE (id);
        CREATE TABLE ads_1 PARTITION OF ads FOR VALUES FROM (0) TO (100);
        INSERT INTO ads VALUES (1, 'one');
        CREATE INDEX of_all ON ads USING hnsw (embedding vector_cosine_ops);";
    says(&reader.sql, schema).await;
    let attach = "cronvec migrate up; cronvec attach ads --text title --embedding-column embedding --json --yes";
    let said = reader.run(attach).await;
    let attached: Value = serde_json::from_str(said.stdout.lines().last().unwrap()).unwrap();
    let index = &attached["columnIndexes"]["indexes"][0];
    assert_eq!(index["drop"], "DROP INDEX public.of_all", "{said:?}");
    says(&reader.sql, &format!("{};", index["drop"].as_str().unwrap())).await;
    says(&reader.sql, &format!("{};", index["create"].as_str().unwrap())).await;
    assert_eq!(
        reader
            .count("SELECT count(*) FROM pg_index WHERE indrelid = 'ads'::regclass AND indisvalid AND NOT indisprimary")
            .await,
        1
    );
}

#[tokio::test]
async fn a_backfill_that_is_killed_in_the_middle_and_begun_again_redoes_next_to_nothing_and_loses_nothing() {
    let (size, kills) = if full_size() { (FULL, 5) } else { ((2_000, 400), 1) };
    let missing = size.0 - size.1;
    for kill in 1..=kills {
        let provider = instant(Duration::ZERO).await;
        let mut reader = ads(&provider, size).await;
        adopts_unchecked(&mut reader);
        let before = reader.says("listings: checksum").await;
        reader.runs("listings: attach").await;
        let part = usize::try_from(missing).unwrap() * kill / (kills + 1);
        let mut backfill = reader.start("exec cronvec backfill --project ads --yes").await;
        eventually("it is in the middle", || async { provider.inputs() >= part }).await;
        backfill.kill().await;
        let stored = reader.count(FILLED).await - i64::from(size.1);
        assert!(stored < i64::from(missing), "work is left");
        // Or it would be waited for, a minute and five seconds.
        reader
            .sql
            .batch_execute("UPDATE cronvec.job_queue SET lease_expires_at = now() WHERE status = 'PROCESSING'")
            .await
            .unwrap();
        reader.runs("listings: backfill").await;
        assert_eq!(
            reader.coverage("ads").await,
            (i64::from(size.0), i64::from(size.0), 100.0)
        );
        assert_eq!(reader.says("listings: checksum").await, before);
        assert!(reader.says("listings: missing").await.is_empty());
        let again = provider.inputs() - usize::try_from(missing).unwrap();
        println!("killed at {stored} of {missing}: {again} texts sent again");
        assert!(
            !full_size() || again * 100 < usize::try_from(missing).unwrap(),
            "{again}"
        );
    }
}

#[tokio::test]
async fn at_full_size_it_is_filled_at_1600_rows_a_second_and_by_four_lanes_three_times_as_fast_as_by_one() {
    if !full_size() {
        return skipped("it takes minutes; CRONVEC_FULL=1 runs it");
    }
    let provider = instant(Duration::ZERO).await;
    let mut reader = ads(&provider, FULL).await;
    adopts_unchecked(&mut reader);
    let before = reader.says("listings: checksum").await;
    reader.runs("listings: attach").await;
    let ended = reader.lines("backfill --yes").await.pop().unwrap();
    println!("{} rows a second", ended["perSecond"]);
    assert_eq!(ended["embedded"], FULL.0 - FULL.1, "{ended}");
    assert!(ended["perSecond"].as_f64().unwrap() >= 1600.0, "{ended}");
    assert_eq!(reader.says("listings: checksum").await, before);

    let slow = instant(Duration::from_millis(50)).await;
    let mut seconds = Vec::new();
    for lanes in [1, 4] {
        let mut reader = ads(&slow, FULL).await;
        reader.set("EMBEDDING_CONCURRENT_REQUESTS", "1");
        let attach = "cronvec migrate up; cronvec attach ads --text 'title, company, description' --yes";
        assert!(reader.run(attach).await.status.success());
        let ended = reader
            .lines(&format!("backfill --yes --parallel {lanes}"))
            .await
            .pop()
            .unwrap();
        assert_eq!(ended["embedded"], FULL.0, "{ended}");
        println!("--parallel {lanes}: {} s", ended["seconds"]);
        seconds.push(ended["seconds"].as_f64().unwrap());
    }
    assert!(seconds[0] >= 3.0 * seconds[1], "{seconds:?}");
}
