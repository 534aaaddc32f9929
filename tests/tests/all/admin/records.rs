//! `/api/projects/{project}/records/{id}`

use cronvec_nouns::token::Role;
use cronvec_store::sources::NewSource;
use cronvec_tests::provider::{Answer as Said, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::{Answer, Api};

fn path(id: &str) -> String {
    format!("/api/projects/{PROJECT}/records/{id}")
}

async fn put(api: &Api, id: &str, body: Value) -> Answer {
    api.call(api.secret(Role::Producer), "PUT", &path(id), Some(body)).await
}

#[tokio::test]
async fn a_record_is_put_read_changed_and_deleted() {
    let api = Api::new().await;
    let body = json!({"content": "one", "metadata": {"n": 12345678901234567890_u64}});
    assert_eq!(
        put(&api, "a", body).await.is(201),
        json!({"id": "a", "embedded": false})
    );
    api.system.vectorize().await;
    let read = api.get(Role::Reader, &path("a")).await.is(200);
    assert_eq!(
        (&read["id"], &read["content"], &read["metadata"], &read["embedded"]),
        (
            &json!("a"),
            &json!("one"),
            &json!({"n": 12345678901234567890_u64}),
            &json!(true)
        )
    );
    let same = put(&api, "a", json!({"content": "one", "metadata": {"n": 2}}))
        .await
        .is(200);
    assert_eq!(same, json!({"id": "a", "embedded": true}), "its text is the same");
    assert_eq!(
        put(&api, "a", json!({"content": "two"})).await.is(200)["embedded"],
        false
    );
    let gone = api
        .call(api.secret(Role::Producer), "DELETE", &path("a"), None)
        .await
        .is(200);
    assert_eq!(gone, json!({"id": "a", "deleted": true}));
    api.get(Role::Reader, &path("a")).await.is(404);
    let gone = api
        .call(api.secret(Role::Producer), "DELETE", &path("a"), None)
        .await
        .is(200);
    assert_eq!(gone["deleted"], false);
    assert_eq!(put(&api, "a", json!({"content": "three"})).await.is(201)["id"], "a");
}

#[tokio::test]
async fn an_id_is_whatever_stands_behind_records_percent_decoded() {
    let api = Api::new().await;
    for (encoded, id) in [
        ("a/b/c", "a/b/c"),
        ("a%2Fb", "a/b"),
        ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        ("%5B%221%22%2C%22x%22%5D", "[\"1\",\"x\"]"),
        ("%C3%A4%20%3Cscript%3E", "ä <script>"),
        (
            "x';DROP%20TABLE%20cronvec.records;--",
            "x';DROP TABLE cronvec.records;--",
        ),
        ("%0D%0AX-Evil:%20yes", "\r\nX-Evil: yes"),
    ] {
        let answer = put(&api, encoded, json!({"content": "text"})).await;
        assert!(!answer.headers.contains_key("x-evil"));
        assert_eq!(answer.is(201)["id"], id);
        assert_eq!(api.get(Role::Reader, &path(encoded)).await.is(200)["id"], id);
    }
    put(&api, "%00", json!({"content": "text"})).await.is(400);
    put(&api, "%FF", json!({"content": "text"})).await.is(400);
    put(&api, &"x".repeat(1001), json!({"content": "text"})).await.is(400);
    put(&api, "", json!({"content": "text"})).await.is(404);
}

#[tokio::test]
async fn a_record_that_cannot_be_stored_is_refused_by_its_field() {
    let system = System::with(&[("MAX_CONTENT_BYTES", "1000")]).await;
    let api = Api::of(system).await;
    for body in [
        json!({}),
        json!({"content": 7}),
        json!({"content": " \n"}),
        json!({"content": "a\u{0}b"}),
        json!({"content": "a", "metadata": [1]}),
        json!({"content": "a", "metadata": {"x": "\u{0}"}}),
        json!({"content": "a", "id": "b"}),
    ] {
        put(&api, "a", body).await.is(400);
    }
    put(&api, "a", json!({"content": "x".repeat(1001)})).await.is(413);
    put(&api, "a", json!({"content": "x".repeat(1000)})).await.is(201);
    let nowhere = "/api/projects/nowhere/records/a";
    api.get(Role::Reader, nowhere).await.is(404);
    api.call(api.secret(Role::Producer), "DELETE", nowhere, None)
        .await
        .is(404);
}

#[tokio::test]
async fn without_the_queue_a_put_embeds_before_it_answers_and_its_failure_never_fails_the_write() {
    let provider = Provider::start().await;
    let off = [("EMBEDDING_QUEUE_ENABLED", "false")];
    let api = Api::of(System::embedding_as(&provider, 16, &off).await).await;
    let long = "many words in a row. ".repeat(400);
    assert_eq!(put(&api, "a", json!({"content": long})).await.is(201)["embedded"], true);
    api.system.assert_all_embedded_by_fake(PROJECT, 16).await;
    provider.answer_next(1, Said::error(429, "rate_limit_exceeded", "slow down"));
    assert_eq!(
        put(&api, "b", json!({"content": "one"})).await.is(201)["embedded"],
        false
    );
    let pauses = "SELECT count(*) FROM cronvec.provider_pauses WHERE until > now()";
    assert_eq!(api.system.count(pauses).await, 1, "nobody asks it for a while");
    let requests = provider.log().requests.len();
    assert_eq!(
        put(&api, "c", json!({"content": "two"})).await.is(201)["embedded"],
        false
    );
    assert_eq!(provider.log().requests.len(), requests);
    api.system.run_sql("DELETE FROM cronvec.provider_pauses").await;
    assert_eq!(api.system.vectorize().await.records, 2, "the next tick takes them");
    api.system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn a_tick_leaves_a_record_alone_while_its_writer_embeds_it() {
    let provider = Provider::start().await;
    let off = [("EMBEDDING_QUEUE_ENABLED", "false")];
    let api = Api::of(System::embedding_as(&provider, 16, &off).await).await;
    let gate = provider.hold();
    let (written, ()) = tokio::join!(put(&api, "a", json!({"content": "one"})), async {
        provider.wait_open(1).await;
        assert_eq!(api.system.vectorize().await.records, 0);
        gate.release();
    });
    assert_eq!(written.is(201)["embedded"], true);
    assert_eq!(provider.log().requests.len(), 1);
}

#[tokio::test]
async fn with_search_switched_off_nothing_is_embedded_and_nothing_missed() {
    let off = [
        ("SEMANTIC_SEARCH_ENABLED", "false"),
        ("EMBEDDING_QUEUE_ENABLED", "false"),
    ];
    let api = Api::of(System::with(&off).await).await;
    assert_eq!(
        put(&api, "a", json!({"content": "one"})).await.is(201)["embedded"],
        false
    );
    assert_eq!(
        api.system
            .count("SELECT count(*) FROM cronvec.pending WHERE not_before <= now()")
            .await,
        1
    );
    let question = json!({"project": PROJECT, "query": "one"});
    api.post(Role::Reader, "/api/search", question).await.is(503);
}

#[tokio::test]
async fn a_project_that_is_being_removed_takes_nothing() {
    let api = Api::new().await;
    api.system
        .run_sql("UPDATE cronvec.projects SET paused = true, removing = true")
        .await;
    put(&api, "a", json!({"content": "one"})).await.is(409);
    api.call(api.secret(Role::Producer), "DELETE", &path("a"), None)
        .await
        .is(409);
    let records = json!({"project": PROJECT, "records": [{"id": "a", "content": "one"}]});
    api.post(Role::Admin, "/api/ingest", records).await.is(409);
    let resumed = api.post(Role::Admin, "/api/admin/resume", json!({})).await.is(200);
    assert_eq!(resumed["projects"], json!([]));
}

#[tokio::test]
async fn who_holds_a_record_for_long_makes_its_writers_come_back_later_and_nobody_wait_for_ever() {
    let api = Api::new().await;
    put(&api, "a", json!({"content": "one"})).await.is(201);
    let mut other = api.system.database.client().await;
    let transaction = other.transaction().await.unwrap();
    transaction
        .batch_execute("SELECT FROM cronvec.records WHERE id = 'a' FOR UPDATE")
        .await
        .unwrap();
    let refused = put(&api, "a", json!({"content": "two"})).await;
    assert!(refused.headers.contains_key("retry-after"));
    // It gave up waiting for the lock; it wasn't cut off at the end of a request's time.
    let said = refused.is(503);
    assert!(said["error"].as_str().unwrap().contains("too busy"), "{said}");
    transaction.rollback().await.unwrap();
    put(&api, "a", json!({"content": "two"})).await.is(200);
}

#[tokio::test]
async fn records_of_a_project_that_a_table_feeds_are_written_by_nobody_else() {
    let api = Api::new().await;
    api.system
        .run_sql("CREATE TABLE public.pages (id int PRIMARY KEY, body text); INSERT INTO pages VALUES (1, 'a page')")
        .await;
    let new = NewSource {
        table: "pages",
        key: &[],
        text: "body",
        metadata: None,
        filter: None,
        embedding_column: None,
        forgets: false,
        adopt: None,
        take_over: None,
    };
    let project = api.system.store.project(PROJECT).await.unwrap();
    let space = &api.system.settings.embedding.new_space;
    let source = api.system.store.attach(&new, &project, space).await.unwrap();
    api.system.store.reconcile_slice(source.id, 10_000_000).await.unwrap();

    let ingest = json!({"project": PROJECT, "records": [{"id": "note", "content": "a note"}]});
    let refused = [
        put(&api, "note", json!({"content": "a note"})).await,
        put(&api, "1", json!({"content": "another"})).await,
        api.call(api.secret(Role::Producer), "DELETE", &path("1"), None).await,
        api.post(Role::Producer, "/api/ingest", ingest).await,
        api.post(Role::Producer, "/api/ingest/jobs", json!({"project": PROJECT}))
            .await,
    ];
    for answer in refused {
        let error = answer.is(409)["error"].as_str().unwrap().to_owned();
        assert!(
            error.contains("public.pages") && error.contains("cronvec detach articles"),
            "{error}"
        );
    }
    assert_eq!(api.get(Role::Reader, &path("1")).await.is(200)["content"], "a page");
}
