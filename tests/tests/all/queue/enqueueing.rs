use cronvec_store::enqueue::{EnqueueOptions, Enqueued, NewJob};
use cronvec_store::{Store, StoreError};
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::json;

use super::{claim_ingest, row};

fn keyed(key: &str) -> EnqueueOptions {
    EnqueueOptions {
        idempotency_key: Some(key.into()),
        ..EnqueueOptions::default()
    }
}

async fn send(store: &Store, project: &str, text: &str, options: EnqueueOptions) -> Result<Enqueued, StoreError> {
    let record = record("a", text).to_string();
    let job = NewJob {
        project,
        records: &[record.as_bytes()],
        options,
    };
    store.enqueue(job).await
}

#[tokio::test]
async fn a_key_with_the_same_body_gets_the_same_job_with_another_a_conflict() {
    let system = System::embedding_in_process().await;
    system.create_project("other").await;
    let store = &system.store;
    let first = send(store, PROJECT, "one", keyed("k")).await.unwrap();
    let Enqueued::New(id) = first else { panic!("{first:?}") };
    assert_eq!(
        send(store, PROJECT, "one", keyed("k")).await.unwrap(),
        Enqueued::Same(id)
    );
    let refused = send(store, PROJECT, "two", keyed("k")).await;
    assert!(
        matches!(&refused, Err(StoreError::Conflict(text)) if text.contains(&id.to_string())),
        "{refused:?}"
    );
    let unembedded = EnqueueOptions {
        embed: false,
        ..keyed("k")
    };
    assert!(matches!(
        send(store, PROJECT, "one", unembedded).await,
        Err(StoreError::Conflict(_))
    ));
    for (project, key) in [("other", "k"), (PROJECT, "k2")] {
        let new = send(store, project, "two", keyed(key)).await.unwrap();
        assert!(matches!(new, Enqueued::New(other) if other != id));
    }

    // For as long as the job is there, whatever became of it.
    let job = claim_ingest(&system).await.unwrap();
    assert_eq!(job.lease.job_id, id);
    store.complete_job(&job, json!({})).await.unwrap();
    assert_eq!(
        send(store, PROJECT, "one", keyed("k")).await.unwrap(),
        Enqueued::Same(id)
    );
    system
        .run_sql(&format!("DELETE FROM cronvec.job_queue WHERE id = {id}"))
        .await;
    assert!(matches!(
        send(store, PROJECT, "two", keyed("k")).await.unwrap(),
        Enqueued::New(_)
    ));
}

#[tokio::test]
async fn what_is_asked_of_a_job_is_part_of_its_body_and_what_the_settings_add_is_not() {
    let system = System::embedding_in_process().await;
    let store = &system.store;
    let at = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let asked = EnqueueOptions {
        priority: 5,
        scheduled_for: Some(at),
        ..keyed("k")
    };
    let id = send(store, PROJECT, "one", asked.clone()).await.unwrap().job_id();
    let other_settings = EnqueueOptions {
        otherwise: cronvec_store::enqueue::Retries {
            max_attempts: 9,
            backoff_ms: 1,
        },
        ..asked.clone()
    };
    for same in [asked.clone(), other_settings] {
        assert_eq!(send(store, PROJECT, "one", same).await.unwrap(), Enqueued::Same(id));
    }
    let others = [
        EnqueueOptions {
            priority: 6,
            ..asked.clone()
        },
        EnqueueOptions {
            max_attempts: Some(4),
            ..asked.clone()
        },
        EnqueueOptions {
            scheduled_for: None,
            ..asked.clone()
        },
        EnqueueOptions {
            scheduled_for: Some(at + time::Duration::seconds(1)),
            ..asked.clone()
        },
        EnqueueOptions { embed: false, ..asked },
    ];
    for other in others {
        let refused = send(store, PROJECT, "one", other).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    }
    assert!(claim_ingest(&system).await.is_none(), "its time hasn't come");
    system
        .run_sql("UPDATE cronvec.job_queue SET scheduled_for = now() - interval '1 second'")
        .await;
    assert_eq!(claim_ingest(&system).await.unwrap().lease.job_id, id);
}

#[tokio::test]
async fn a_key_that_many_use_at_once_makes_one_job() {
    let system = System::embedding_in_process().await;
    let url = system.database.url();
    let store = Store::new(cronvec_store::Database::at(url, 8).unwrap());
    let sent = futures::future::join_all((0..8).map(|_| send(&store, PROJECT, "one", keyed("k")))).await;
    let ids: Vec<i64> = sent.iter().map(|job| job.as_ref().unwrap().job_id()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(
        sent.iter()
            .filter(|job| matches!(job.as_ref().unwrap(), Enqueued::New(_)))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_bulk_with_two_bodies_for_a_key_is_refused_and_so_are_options_that_make_no_sense() {
    let system = System::embedding_in_process().await;
    let (one, two) = (record("a", "one").to_string(), record("a", "two").to_string());
    let (one, two) = ([one.as_bytes()], [two.as_bytes()]);
    let job = |records| NewJob {
        project: PROJECT,
        records,
        options: keyed("k"),
    };
    let refused = system.store.enqueue_many(&[job(&one), job(&two)]).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.job_queue").await, 0);
    let sent = system.store.enqueue_many(&[job(&one), job(&one)]).await.unwrap();
    assert_eq!(sent[1], Enqueued::Same(sent[0].job_id()));

    let nonsense = [
        EnqueueOptions {
            max_attempts: Some(0),
            ..EnqueueOptions::default()
        },
        EnqueueOptions {
            backoff_ms: Some(-1),
            ..EnqueueOptions::default()
        },
        EnqueueOptions {
            priority: i32::MIN,
            ..EnqueueOptions::default()
        },
        keyed("a\0b"),
        keyed(&"k".repeat(501)),
    ];
    for options in nonsense {
        let refused = send(&system.store, PROJECT, "one", options).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn thousands_of_jobs_of_many_projects_go_in_with_one_statement_or_not_at_all() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "WITH made AS (INSERT INTO cronvec.projects (name) SELECT 'p' || n FROM generate_series(0, 99) AS n RETURNING id)
             INSERT INTO cronvec.project_spaces (project_id, space_id, role) SELECT id, 1, 'live' FROM made;
             CREATE TABLE public.statements (at timestamptz);
             CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN INSERT INTO public.statements VALUES (now()); RETURN NULL; END';
             CREATE TRIGGER note AFTER INSERT ON cronvec.job_queue FOR EACH STATEMENT EXECUTE FUNCTION public.note()",
        )
        .await;
    let text = record("a", "a text").to_string();
    let records = [text.as_bytes()];
    let projects: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    let mut jobs: Vec<NewJob<'_>> = (0..5000_i32)
        .map(|n| NewJob {
            project: &projects[n.rem_euclid(100) as usize],
            records: &records,
            options: EnqueueOptions {
                priority: n,
                ..EnqueueOptions::default()
            },
        })
        .collect();
    let enqueued = system.store.enqueue_many(&jobs).await.unwrap();
    let counts =
        "SELECT jsonb_build_array(count(*), count(DISTINCT project), count(DISTINCT id), min(priority), max(priority))
                  FROM cronvec.job_queue WHERE status = 'PENDING'";
    assert_eq!(system.value(counts).await, json!([5000, 100, 5000, 0, 4999]));
    assert_eq!(system.count("SELECT count(*) FROM public.statements").await, 1);
    let ids: Vec<i64> = enqueued.iter().map(Enqueued::job_id).collect();
    assert!(ids.is_sorted(), "accepted in the order of the call");
    assert_eq!(
        (row(&system, ids[4321]).await["priority"].clone(), ids.len()),
        (json!(4321), 5000)
    );

    jobs[2500].project = "nobody's";
    let refused = system.store.enqueue_many(&jobs).await;
    assert!(
        matches!(&refused, Err(StoreError::NoProject(name)) if name == "nobody's"),
        "{refused:?}"
    );
    assert_eq!(system.count("SELECT count(*) FROM cronvec.job_queue").await, 5000);
}
