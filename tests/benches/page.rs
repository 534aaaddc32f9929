//! Owns what the page costs beside a long queue: the queue's stats, a refresh, and each statement of it.

use std::net::SocketAddr;
use std::time::Instant;

use admin::{Admin, Pace};
use cronvec_nouns::token::{self, Reach, Role};
use cronvec_secrets::Secrets;
use cronvec_store::listing::Listing;
use cronvec_store::tokens::NewToken;
use cronvec_tests::http;
use cronvec_tests::system::System;
use tokio::net::TcpListener;

use crate::rounds::median;

const CALLS: usize = 50;

/// Beside so many finished jobs, and a tenth of that pending, of ten projects.
pub async fn refreshes(finished: usize) {
    let system = System::embedding_in_process().await;
    system.run_sql("SET statement_timeout = 0").await;
    for n in 0..9 {
        system.create_project(&format!("p{n}")).await;
    }
    system
        .run_sql(&format!(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, started_at, completed_at, result)
             SELECT 'INGEST_DATA', p.name, p.id, CASE WHEN n % 1000 = 0 THEN 'FAILED' ELSE 'COMPLETED' END, now(), now(),
                 CASE WHEN n % 1000 = 0 THEN '{{\"error\": \"it broke\"}}'::jsonb ELSE '{{\"savedCount\": 1000}}' END
             FROM generate_series(1, {finished}) AS n
             JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS nth FROM cronvec.projects) AS p ON p.nth = n % 10;
             INSERT INTO cronvec.job_queue (job_type, project, project_id, turn)
             SELECT 'INGEST_DATA', p.name, p.id, n
             FROM generate_series(1, {finished} / 10) AS n
             JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS nth FROM cronvec.projects) AS p ON p.nth = n % 10;
             INSERT INTO cronvec.performance_metrics (timestamp, metric, value, project)
             SELECT now() - n * interval '5 seconds', m, 100, 'p1'
             FROM generate_series(1, 17280) AS n, unnest(ARRAY['records_embedded', 'provider_requests', 'lost_leases']) AS m"
        ))
        .await;
    for (name, sql) in [("without statistics", "CHECKPOINT"), ("vacuumed", "VACUUM ANALYZE")] {
        system.run_sql(sql).await;
        println!("{name}:");
        for limited in [false, true] {
            calls(&system, limited).await;
        }
    }
}

async fn calls(system: &System, limited: bool) {
    let secret = token::generate();
    let projects = ["p1".to_owned(), "p2".to_owned()];
    let new = NewToken {
        name: &secret,
        role: Role::Manager,
        projects: limited.then_some(projects.as_slice()),
        hash: token::hash(&secret),
        hint: "cvk_",
        expires_in_days: None,
    };
    system.store.create_token(&new).await.expect("a token");
    let admin = Admin::in_process(system.settings.clone(), Secrets::without_aws(), 3, Pace::Schedule);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let service = admin::router(admin).into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(async move { axum::serve(listener, service).await });
    let client = http::client();
    let whom = if limited {
        "a token of two projects"
    } else {
        "a token of all"
    };
    for path in ["/api/admin/queue/stats", "/api/admin/monitor"] {
        let mut times = Vec::new();
        for _ in 0..CALLS {
            let began = Instant::now();
            let answer = client
                .get(format!("{base}{path}"))
                .bearer_auth(&secret)
                .send()
                .await
                .expect("an answer");
            assert_eq!(answer.status(), 200);
            answer.bytes().await.expect("a body");
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        println!("  {path}, {whom}: {:.1} ms", median(times));
    }
    serving.abort();
    let reach = Reach::of(limited.then(|| projects.to_vec()));
    let listing = Listing {
        status: None,
        job_type: None,
        reach: reach.clone(),
        id: None,
    };
    let store = &system.store;
    macro_rules! timed {
        ($name:literal, $call:expr) => {{
            let mut times = Vec::new();
            for _ in 0..CALLS {
                let began = Instant::now();
                $call.await.expect("an answer");
                times.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            println!("    {}: {:.2} ms", $name, median(times));
        }};
    }
    timed!("counts", store.counts_of(&reach));
    timed!("recent jobs", store.jobs_page(&listing, None, 50));
    timed!("oldest", store.oldest_pending_of(&reach));
    timed!("failures", store.failures_of(&reach));
    timed!("hour", store.flow_lately(&reach));
    timed!("day, once a minute", store.flow_before(&reach));
    timed!("coverage", store.counted_coverage(&reach));
    timed!("endpoints", store.rests_of(&reach));
    timed!("workers", store.worker_statuses());
    timed!("projects", store.projects());
}
