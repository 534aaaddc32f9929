//! Articles with a slug, a background queue, an admin command line.

use cronvec_tests::provider::{Answer, Provider};

use super::{Reader, guide, says};

const TRIGGERS: &str = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'articles'::regclass";

async fn knowledge_base(provider: &Provider) -> Reader {
    let mut reader = Reader::with(provider).await;
    reader.takes_settings("articles: settings");
    reader.says("articles: schema").await;
    let fill = "INSERT INTO articles (slug, title, content, folder)
        SELECT 'article-' || n, 'Article ' || n, 'What article ' || n || ' has to say.', 'notes' FROM generate_series(1, 12) AS n;";
    says(&reader.sql, fill).await;
    reader.runs("articles: attach").await;
    reader
}

#[tokio::test]
async fn an_article_written_while_the_provider_is_down_is_stored_at_once_and_embedded_when_it_is_back() {
    let provider = Provider::start().await;
    let reader = knowledge_base(&provider).await;
    assert_eq!(reader.coverage("articles").await, (12, 12, 100.0));
    let found = reader.says("articles: search").await;
    assert_eq!(found.len(), 10, "{found:?}");

    provider.answer_when(|_| true, Answer::error(503, "server_error", "down"));
    says(
        &reader.sql,
        "INSERT INTO articles (slug, title, content) VALUES ('meanwhile', 'Meanwhile', 'Written during the outage.');
         UPDATE articles SET content = 'Changed during the outage.' WHERE slug = 'article-3';",
    )
    .await;
    let tick = reader.object("tick vectorization").await;
    assert_eq!(
        (&tick["records"], &tick["stoppedBecause"]),
        (&0.into(), &"provider".into()),
        "{tick}"
    );
    let told = reader.object("explain meanwhile --project articles").await;
    assert_eq!(told["state"], "endpoint_paused", "{told}");
    assert_eq!(reader.coverage("articles").await, (13, 11, 84.62));
    let stale = "SELECT count(*) FROM cronvec.embeddings WHERE record_id = 'article-3' AND stale";
    assert_eq!(reader.count(stale).await, 1, "it is found by its old text");

    provider.behave();
    reader.runs("articles: after an outage").await;
    assert_eq!(reader.coverage("articles").await, (13, 13, 100.0));
    let charged = "SELECT count(*) FROM cronvec.quarantine";
    assert_eq!(reader.count(charged).await, 0, "nobody is charged for an outage");
    reader.runs("articles: go back").await;
    assert_eq!(reader.count(TRIGGERS).await, 0);
}

/// The first line, but for numbers and the width of columns.
fn heading(printed: &str) -> String {
    let first = printed.lines().next().unwrap_or_default();
    let words = first.split_whitespace().map(|word| {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit());
        if is_number { "0" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn each_verb_of_their_command_line_has_its_counterpart_which_prints_what_the_guide_shows() {
    let provider = Provider::start().await;
    let mut reader = knowledge_base(&provider).await;
    says(
        &reader.sql,
        "INSERT INTO articles (slug, title, content) VALUES ('draft', '', '');",
    )
    .await;
    for worker in ["ingestion", "vectorization", "cleanup"] {
        reader.object(&format!("tick {worker}")).await;
    }
    let job = reader.lines("recent").await[0]["id"].as_str().unwrap().to_owned();
    reader.calls("cronvec job 13", &format!("cronvec job {job}"));
    let shown = guide::commands(&guide::block("articles: verbs", "console"));
    assert!(shown.len() > 15, "{shown:?}");
    for (command, printed) in shown {
        let said = reader.run(&command).await;
        assert!(said.status.success(), "{command}: {said:?}");
        assert_eq!(
            heading(&said.stdout).replace(&job, "13"),
            heading(&printed),
            "{command}"
        );
    }
}
