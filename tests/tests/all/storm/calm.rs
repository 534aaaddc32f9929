//! After the storm: everybody is well and everything resumed; ticks until nothing is left.

use std::time::Duration;

use cronvec_tests::conditions::within;

use super::place::OURS;
use super::{Fate, Storm, weather, workers};

/// Ticks that may be needed at most, of each worker.
const ROUNDS: usize = 60;

pub async fn calm(storm: &Storm) {
    storm.say("storm", "is over");
    weather::good(storm);
    let others = format!(
        "SELECT string_agg(application_name || ': ' || query, '; ') FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> '{OURS}'"
    );
    within(
        Duration::from_secs(30),
        "the last statements of dead processes have ended",
        || async { storm.place.text(&others).await.is_none().then_some(()) },
    )
    .await;
    held_by_the_living(storm).await;
    storm.place.must(&["start"], "1").await;
    storm.place.must(&["provider", "test"], "1").await;
    let killed: Vec<String> = {
        let fates = storm.fates.lock().expect("fates");
        let dead = fates.iter().filter(|(_, fate)| **fate == Fate::Killed);
        dead.map(|(name, _)| name.clone()).collect()
    };
    for round in 0..ROUNDS {
        storm.place.expire(&killed).await;
        storm
            .place
            .run(
                "UPDATE cronvec.pending SET not_before = clock_timestamp() WHERE not_before > clock_timestamp();
                 UPDATE cronvec.job_queue SET scheduled_for = clock_timestamp()
                     WHERE status = 'PENDING' AND scheduled_for > clock_timestamp()",
            )
            .await;
        for worker in ["ingestion", "vectorization"] {
            let name = format!("calm-{worker}-{round}");
            let address = storm.place.address(&name);
            let words = ["tick", worker, "--max-seconds", "10"];
            let process = storm.place.cronvec(&words, &address, "1").await;
            workers::end(storm, &name, process).await;
        }
        let left = storm
            .place
            .text(
                "SELECT 'left' WHERE EXISTS (SELECT FROM cronvec.pending)
                     OR EXISTS (SELECT FROM cronvec.job_queue WHERE status IN ('PENDING', 'PROCESSING'))",
            )
            .await;
        if left.is_none() {
            return;
        }
    }
    storm.fault(format!("work is left after {ROUNDS} calm ticks"));
}

/// Who ended by itself holds nothing any more.
async fn held_by_the_living(storm: &Storm) {
    let held = storm
        .place
        .ask(
            "SELECT j.id, c.name FROM cronvec.job_queue j LEFT JOIN public.claims c ON c.token = j.lease_token
             WHERE j.status = 'PROCESSING'",
        )
        .await;
    for row in held {
        let (job, name): (i64, Option<String>) = (row.get(0), row.get(1));
        let fates = storm.fates.lock().expect("fates");
        let fate = name.as_ref().and_then(|name| fates.get(name)).copied();
        drop(fates);
        if fate != Some(Fate::Killed) {
            storm.fault(format!("job {job} is still held by {name:?}, which came to {fate:?}"));
        }
    }
}
