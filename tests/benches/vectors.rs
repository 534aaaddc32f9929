//! Owns the speed of vectorization beside that of `COPY`, and of a provider that takes its time.
#![allow(clippy::disallowed_methods, reason = "COPY is what is measured")]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use cronvec_tests::provider::{Options, Provider};
use cronvec_tests::system::System;
use futures::{SinkExt, StreamExt, pin_mut};
use tokio_postgres::Client;

use crate::rounds::{compare, rate};
use crate::worker::{self, Took};
use crate::{Sizes, records};

const WIDTH: u16 = 1536;

/// 1536 wide, through a provider that answers at once; beside binary `COPY` of the same rows into a table that is the
/// same in columns, keys and storage.
pub async fn stored(sizes: Sizes) {
    let provider = provider(Duration::ZERO).await;
    println!("{}", alone(&provider).await);
    let texts = records::texts(sizes.records, 1);
    let (mut ours, mut copied) = (Vec::new(), Vec::new());
    for round in 0..sizes.rounds {
        let system = filled(&provider, &texts).await;
        let took = vectorize(&system, &provider, 4).await;
        let chunks = count_chunks(&system, &texts).await;
        tell(round, &took);
        ours.push(rate(chunks, took.wall));
        copied.push(rate(chunks, copy(&system).await));
    }
    compare("vectors stored", &ours, "binary COPY", &copied);
}

/// 50 ms a request, 25 inputs, 4 and 32 in flight.
pub async fn kept_waiting(sizes: Sizes) {
    const LATENCY: Duration = Duration::from_millis(50);
    let provider = provider(LATENCY).await;
    let texts = records::texts(sizes.records, 1);
    for in_flight in [4, 32] {
        let allowed = rate(25 * in_flight, LATENCY);
        let mut rates = Vec::new();
        for round in 0..sizes.rounds {
            let system = filled(&provider, &texts).await;
            let took = vectorize(&system, &provider, in_flight).await;
            tell(round, &took);
            rates.push(rate(count_chunks(&system, &texts).await, took.wall));
        }
        let ceiling = vec![allowed; rates.len()];
        compare(
            &format!("{in_flight} in flight"),
            &rates,
            "the provider allows",
            &ceiling,
        );
    }
}

async fn provider(latency: Duration) -> Provider {
    Provider::with(Options {
        latency,
        dimensions: WIDTH.into(),
        instant: true,
        ..Options::default()
    })
    .await
}

/// How fast the provider is when nobody does anything with what it answers.
async fn alone(provider: &Provider) -> String {
    let body = serde_json::json!({"model": "m", "input": vec!["a text of some length, like others"; 25], "encoding_format": "base64"});
    let client = cronvec_tests::http::client();
    let began = Instant::now();
    let mut vectors = 0;
    while began.elapsed() < Duration::from_secs(1) {
        let answer = client
            .post(format!("{}/embeddings", provider.url()))
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        answer.bytes().await.expect("a body");
        vectors += 25;
    }
    format!(
        "provider alone, one request at a time: {:.0} vectors/s",
        rate(vectors, began.elapsed())
    )
}

async fn filled(provider: &Provider, texts: &[String]) -> System {
    let system = System::embedding_with(provider, WIDTH).await;
    for (number, some) in texts.chunks(5_000).enumerate() {
        let ids: Vec<String> = (0..some.len()).map(|n| format!("r{}", number * 5_000 + n)).collect();
        system
            .sql
            .query_typed(
                "SELECT count(cronvec.put_record('articles', id, content)) FROM unnest($1, $2) AS i (id, content)",
                &[
                    (&ids, tokio_postgres::types::Type::TEXT_ARRAY),
                    (&some, tokio_postgres::types::Type::TEXT_ARRAY),
                ],
            )
            .await
            .expect("records");
    }
    system
}

async fn vectorize(system: &System, provider: &Provider, in_flight: usize) -> Took {
    let (url, width, in_flight) = (provider.url(), WIDTH.to_string(), in_flight.to_string());
    let environment = [
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", url.as_str()),
        ("OPENAI_API_KEY", "sk-none"),
        ("EMBEDDING_DIMENSIONS", width.as_str()),
        ("EMBEDDING_CONCURRENT_REQUESTS", in_flight.as_str()),
    ];
    worker::run(&system.database, &["tick", "vectorization", "--json"], &environment).await
}

fn tell(round: usize, took: &Took) {
    println!(
        "round {}: {:.2} s; worker {:.2} s of a core and {:.0} MB at most, database {:.2} s of a core",
        round + 1,
        took.wall.as_secs_f64(),
        took.cpu,
        took.peak_memory_mb,
        took.database_cpu
    );
}

async fn count_chunks(system: &System, texts: &[String]) -> usize {
    let embedded = system.count("SELECT count(*) FROM cronvec.embedded").await;
    assert_eq!(
        usize::try_from(embedded).ok(),
        Some(texts.len()),
        "all are embedded in one tick"
    );
    usize::try_from(system.count("SELECT count(*) FROM cronvec.chunks").await).expect("a count")
}

/// Binary `COPY` of what is there into a table of the same form, the bytes read beforehand.
async fn copy(system: &System) -> Duration {
    let space = system
        .count("SELECT space_id::bigint FROM cronvec.project_spaces")
        .await;
    let mut pieces = Vec::new();
    {
        let out = system
            .sql
            .copy_out(&format!("COPY cronvec.chunks_{space} TO STDOUT (FORMAT binary)"))
            .await
            .expect("rows");
        pin_mut!(out);
        let mut piece = BytesMut::new();
        while let Some(row) = out.next().await {
            piece.extend_from_slice(&row.expect("a row"));
            if piece.len() > 1 << 20 {
                pieces.push(piece.split().freeze());
            }
        }
        pieces.push(piece.freeze());
    }
    system
        .run_sql(&format!(
            "CREATE TABLE copied (LIKE cronvec.chunks_{space} INCLUDING ALL); CHECKPOINT"
        ))
        .await;
    let began = Instant::now();
    send(&system.sql, pieces).await;
    began.elapsed()
}

async fn send(sql: &Client, pieces: Vec<bytes::Bytes>) {
    let into = sql
        .copy_in("COPY copied FROM STDIN (FORMAT binary)")
        .await
        .expect("a COPY");
    pin_mut!(into);
    for piece in pieces {
        into.send(piece).await.expect("rows");
    }
    into.finish().await.expect("the end");
}
