//! `projects remove`: what goes, what stays, and what an end in the middle leaves.

use cronvec_nouns::token::Role;
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::{Cli, DONE, FAILED, INTERRUPTED, USAGE, whole};

/// 1,200 records, embedded, and a project beside it that nothing may happen to.
async fn two_projects() -> (Provider, System, Cli) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    system.create_project("other").await;
    system.put_many(PROJECT, 1_200, "text number").await;
    system.put_many("other", 30, "another text").await;
    while system.vectorize().await.remaining {}
    system.put(PROJECT, "waits", "pending").await;
    system.put("other", "waits", "pending").await;
    let cli = Cli::of(&system, &provider);
    (provider, system, cli)
}

/// Rows that belong to a project, by table.
async fn belongings(system: &System, project: &str) -> Value {
    let tables = [
        "records",
        "chunks",
        "embedded",
        "pending",
        "job_queue",
        "quarantined_records",
        "backfills",
    ];
    let counts: Vec<String> = tables
        .iter()
        .map(|table| format!("'{table}', (SELECT count(*) FROM cronvec.{table} t WHERE t.project_id = p.id)"))
        .collect();
    let of = system
        .value(&format!(
            "SELECT jsonb_build_object({}) FROM cronvec.projects p WHERE p.name = '{project}'",
            counts.join(", ")
        ))
        .await;
    let orphans: Vec<String> = tables
        .iter()
        .map(|table| {
            format!(
                "(SELECT count(*) FROM cronvec.{table} t WHERE NOT EXISTS (SELECT FROM cronvec.projects p WHERE p.id = t.project_id))"
            )
        })
        .collect();
    assert_eq!(
        system.count(&format!("SELECT {}", orphans.join(" + "))).await,
        0,
        "nothing belongs to nobody"
    );
    of
}

/// Each transaction that deletes records notes how many.
const NOTES: &str = "
    CREATE TABLE public.gone (transaction bigint DEFAULT txid_current(), records bigint);
    CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.gone (records) SELECT count(*) FROM old_rows; RETURN NULL; END $$;
    CREATE TRIGGER note AFTER DELETE ON cronvec.records REFERENCING OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION public.note();";

#[tokio::test]
async fn a_project_goes_with_all_that_it_has_in_bounded_slices_and_no_other_is_touched() {
    let (_provider, system, cli) = two_projects().await;
    let other = belongings(&system, "other").await;
    let asked = ["Remove project articles with 1,201 records, 1,200 vectors and", "--yes"];
    cli.refuses("projects remove articles", USAGE, &asked).await;
    assert_eq!(
        belongings(&system, PROJECT).await["records"],
        1_201,
        "it was only asked"
    );
    system.run_sql(NOTES).await;
    let removed = cli.object("projects remove articles --yes").await;
    assert_eq!(
        (
            &removed["project"],
            &removed["state"],
            &removed["records"],
            &removed["vectors"]
        ),
        (&json!(PROJECT), &json!("removed"), &json!(1_201), &json!(1_200)),
        "{removed}"
    );
    assert!(removed["jobs"].as_u64() > Some(0), "{removed}");
    assert_eq!(belongings(&system, PROJECT).await, Value::Null);
    assert_eq!(belongings(&system, "other").await, other);
    assert_eq!(
        system
            .value("SELECT jsonb_build_array(sum(records), max(records)) FROM (SELECT sum(records) AS records FROM gone GROUP BY transaction) AS t")
            .await,
        json!([1_201, 500]),
        "a transaction never has more"
    );
    let acts = cli.lines("audit --category project").await;
    let said: Vec<&str> = acts.iter().map(|act| act["message"].as_str().unwrap()).collect();
    assert!(
        said[0].starts_with("project removed with 1,201 records, 1,200 vectors and"),
        "{said:?}"
    );
    assert_eq!(said[1], "project's removal begun");
    assert_eq!(acts[0]["metadata"]["ids"], json!([PROJECT]));
    cli.refuses("projects remove articles --yes", FAILED, &["no project 'articles'"])
        .await;
    assert_eq!(cli.object("projects create articles").await["state"], "created");
    assert_eq!(cli.object("tick vectorization").await["records"], 1, "the other's");
}

/// The second slice stands still at a record of its own, until this client lets go. It waits for longer than a slice does
/// for anybody, or it would give up by itself.
async fn keep_at_the_gate(system: &System) -> tokio_postgres::Client {
    system
        .run_sql(
            "CREATE TABLE public.gate ();
             CREATE FUNCTION public.stand() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = '20s' AS $$
             BEGIN LOCK TABLE public.gate IN SHARE MODE; RETURN OLD; END $$;
             CREATE TRIGGER stand BEFORE DELETE ON cronvec.records FOR EACH ROW
                 WHEN (OLD.id = 'r720') EXECUTE FUNCTION public.stand()",
        )
        .await;
    let keeper = system.database.client().await;
    keeper
        .batch_execute("BEGIN; LOCK TABLE public.gate IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    keeper
}

#[tokio::test]
async fn an_interrupted_removal_ends_with_its_slice_and_says_how_it_goes_on() {
    let (_provider, system, cli) = two_projects().await;
    let keeper = keep_at_the_gate(&system).await;
    let removal = cli.start("projects remove articles --yes --json").await;
    system.wait_blocked(1).await;
    removal.interrupt();
    eventually("it is told", async || removal.stderr().contains("stopping")).await;
    keeper.batch_execute("ROLLBACK").await.unwrap();
    let outcome = whole(removal).await;
    assert_eq!(
        (outcome.code(), outcome.stdout.as_str()),
        (Some(INTERRUPTED), ""),
        "{outcome:?}"
    );
    assert!(
        outcome
            .stderr
            .contains("`cronvec projects remove articles` goes on with it"),
        "{outcome:?}"
    );
    assert_eq!(belongings(&system, PROJECT).await["records"], 201);
    assert_eq!(cli.object("projects remove articles --yes").await["records"], 201);
}

#[tokio::test]
async fn a_removal_that_was_killed_is_gone_on_with_and_nothing_brings_the_project_back() {
    let (_provider, system, cli) = two_projects().await;
    let keeper = keep_at_the_gate(&system).await;
    let mut removal = cli.start("projects remove articles --yes --json").await;
    system.wait_blocked(1).await;
    removal.kill().await;
    keeper.batch_execute("ROLLBACK").await.unwrap();
    eventually("the dead one's slice is over", || async {
        let busy =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND (state <> 'idle' OR wait_event_type = 'Lock')";
        system.count(busy).await == 0
    })
    .await;
    system.run_sql("DROP TRIGGER stand ON cronvec.records").await;
    let left = belongings(&system, PROJECT).await;
    assert_eq!(
        (&left["records"], &left["job_queue"]),
        (&json!(701), &json!(0)),
        "{left}"
    );

    let put = system
        .sql
        .batch_execute("SELECT cronvec.put_record('articles', 'new', 'a text')")
        .await
        .unwrap_err();
    assert!(format!("{put:?}").contains("is being removed"), "{put:?}");
    let said = [
        "project 'articles' is being removed",
        "cronvec projects remove articles",
    ];
    for line in [
        "start articles",
        "projects resume articles",
        "projects create articles",
        "search --project articles text",
        "backfill --project articles --yes",
    ] {
        cli.refuses(line, FAILED, &said).await;
    }
    let ingest = cli
        .run_reading("ingest - --project articles", "{\"id\":\"a\",\"content\":\"x\"}")
        .await;
    assert_eq!(ingest.code(), Some(FAILED), "{ingest:?}");
    assert!(ingest.stderr.contains(said[0]), "{ingest:?}");
    assert_eq!(cli.object("start").await["started"], json!(["other"]));
    assert!(cli.run("projects list").await.stdout.contains("being removed"));
    let listed = cli.lines("projects list").await;
    assert_eq!(listed[0]["removing"], true, "{listed:?}");
    assert_eq!(cli.object("tick vectorization").await["records"], 1, "the other's");

    let removed = cli.object("projects remove articles --yes").await;
    assert_eq!(
        (&removed["records"], &removed["state"]),
        (&json!(701), &json!("removed")),
        "{removed}"
    );
    assert_eq!(belongings(&system, PROJECT).await, Value::Null);
}

#[tokio::test]
async fn a_transaction_that_is_still_writing_is_waited_for_and_what_it_wrote_goes_too() {
    let (_provider, system, cli) = two_projects().await;
    let user = system.database.client().await;
    user.batch_execute("BEGIN; SELECT cronvec.put_record('articles', 'late', 'a text'); SELECT cronvec.put_record('articles', 'r7', 'another text')")
        .await
        .unwrap();
    let removal = cli.start("projects remove articles --yes --json").await;
    eventually("all the others are gone", || async {
        system.count("SELECT count(*) FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id WHERE p.name = 'articles'").await == 1
    })
    .await;
    user.batch_execute("COMMIT").await.unwrap();
    let outcome = whole(removal).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    assert_eq!(belongings(&system, PROJECT).await, Value::Null);
}

#[tokio::test]
async fn a_project_that_a_table_feeds_is_detached_first() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    system
        .run_sql("CREATE TABLE public.notes (id int PRIMARY KEY, note text); INSERT INTO notes VALUES (1, 'tomatoes')")
        .await;
    cli.object("attach notes --text note").await;
    for line in ["projects remove notes", "projects remove notes --yes"] {
        cli.refuses(
            line,
            USAGE,
            &["public.notes is attached to project notes", "cronvec detach notes"],
        )
        .await;
    }
    cli.object("detach notes --yes").await;
    assert_eq!(cli.object("projects remove notes --yes").await["records"], 1);
    cli.object("attach notes --text note").await;
    assert_eq!(cli.object("coverage --project notes").await["total"], 1);
}

#[tokio::test]
async fn tokens_of_a_project_do_not_reach_another_that_gets_its_name() {
    let (_provider, system, cli) = two_projects().await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    system
        .token("of it alone", Role::Producer, Some(&names(&[PROJECT])))
        .await;
    system
        .token("of both", Role::Producer, Some(&names(&[PROJECT, "other"])))
        .await;
    system
        .token("of the other", Role::Producer, Some(&names(&["other"])))
        .await;
    system.token("of all", Role::Admin, None).await;
    cli.object("projects remove articles --yes").await;
    cli.object("projects create articles").await;
    let reach =
        "SELECT jsonb_object_agg(name, jsonb_build_array(revoked_at IS NULL, projects)) FROM cronvec.api_tokens";
    assert_eq!(
        system.value(reach).await,
        json!({
            "of it alone": [false, [PROJECT]],
            "of both": [true, ["other"]],
            "of the other": [true, ["other"]],
            "of all": [true, null],
        })
    );
}
