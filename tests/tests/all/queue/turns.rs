//! Fairness: priorities, projects, spaces.

use std::collections::HashMap;

use cronvec_nouns::job::{ClaimedJob, End, JobType};
use cronvec_store::claim::Servable;
use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_tests::system::{PROJECT, System};

use super::{claim, claim_ingest, claim_of, claim_vectorize, enqueue_many, ensure};

fn of_priority(priority: i32) -> EnqueueOptions {
    EnqueueOptions {
        priority,
        ..EnqueueOptions::default()
    }
}

async fn release(system: &System, job: &ClaimedJob) {
    let released = End::Released { progressed: true };
    system.store.end_job(job, released).await.unwrap();
}

#[tokio::test]
async fn higher_priorities_come_first_and_a_claim_is_filled_with_lower_ones() {
    let system = System::embedding_in_process().await;
    for priority in [0, -10, 10, 7] {
        enqueue_many(&system.store, PROJECT, 2, &of_priority(priority)).await;
    }
    let mut order = Vec::new();
    while let Some(job) = claim_ingest(&system).await {
        order.push(job.priority);
    }
    assert_eq!(order, [10, 10, 7, 7, 0, 0, -10, -10]);

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    enqueue_many(&system.store, PROJECT, 5, &of_priority(10)).await;
    enqueue_many(&system.store, PROJECT, 20, &of_priority(0)).await;
    assert_eq!(claim(&system.store, JobType::IngestData, 10).await.len(), 10);
}

#[tokio::test]
async fn projects_of_one_priority_take_turns_and_so_do_the_jobs_of_each() {
    let system = System::embedding_in_process().await;
    enqueue_many(&system.store, PROJECT, 50, &of_priority(0)).await;
    for n in 0..5 {
        let name = format!("small-{n}");
        system.create_project(&name).await;
        enqueue_many(&system.store, &name, 2, &of_priority(0)).await;
    }
    let mut order = Vec::new();
    while let Some(job) = claim_ingest(&system).await {
        order.push(job.project);
    }
    assert_eq!(order.len(), 60);
    let large = order[..13].iter().filter(|project| *project == PROJECT).count();
    assert_eq!(large, 3, "after three rounds the small ones are through: {order:?}");

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    enqueue_many(&system.store, PROJECT, 3, &of_priority(0)).await;
    let mut order = Vec::new();
    for _ in 0..9 {
        let job = claim_ingest(&system).await.unwrap();
        order.push(job.lease.job_id);
        release(&system, &job).await;
    }
    assert_eq!((&order[..3], &order[..3]), (&order[3..6], &order[6..]));
}

#[tokio::test]
async fn a_job_that_goes_on_takes_turns_with_other_projects_however_many_jobs_they_have() {
    let system = System::embedding_in_process().await;
    system.create_project("long").await;
    enqueue_many(&system.store, "long", 1, &of_priority(0)).await;
    enqueue_many(&system.store, PROJECT, 50, &of_priority(0)).await;
    let mut order = Vec::new();
    for _ in 0..20 {
        let job = claim_ingest(&system).await.unwrap();
        order.push(job.project.clone());
        if job.project == "long" {
            // It had its slice.
            release(&system, &job).await;
        }
    }
    let turns = order.iter().filter(|project| *project == "long").count();
    assert!((8..=12).contains(&turns), "{turns} of 20: {order:?}");
}

#[tokio::test]
async fn newcomers_never_keep_those_in_line_from_their_turn() {
    let system = System::embedding_in_process().await;
    enqueue_many(&system.store, PROJECT, 5, &of_priority(0)).await;
    for n in 0..40 {
        system.create_project(&format!("new-{n}")).await;
    }
    let mut own = 0;
    for n in 0..40 {
        // Two come, one is served.
        enqueue_many(&system.store, &format!("new-{n}"), 2, &of_priority(0)).await;
        own += usize::from(claim_ingest(&system).await.unwrap().project == PROJECT);
    }
    assert!(own >= 3, "{own} of its 5 jobs had their turn");
}

#[tokio::test]
async fn lanes_give_a_project_no_more_turns_in_the_first_round_than_others_have() {
    let system = System::embedding_in_process().await;
    system.run_sql("UPDATE cronvec.projects SET lanes = 8").await;
    for name in ["second", "third"] {
        system.create_project(name).await;
    }
    for project in [PROJECT, "second", "third"] {
        system
            .run_sql(&format!(
                "SELECT cronvec.put_record('{project}', 'r' || n, 'text ' || n) FROM generate_series(1, 100) AS n"
            ))
            .await;
    }
    assert_eq!(ensure(&system).await, 10);
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(claim_vectorize(&system).await.unwrap().project);
    }
    first.sort();
    assert_eq!(first, [PROJECT, "second", "third"]);
}

/// 200 high, 20 low and 20 lower ones.
async fn three_priorities(system: &System) {
    system.run_sql("DELETE FROM cronvec.job_queue").await;
    for (priority, jobs) in [(10, 200), (0, 20), (-10, 20)] {
        enqueue_many(&system.store, PROJECT, jobs, &of_priority(priority)).await;
    }
}

fn count(jobs: &[ClaimedJob]) -> HashMap<i32, usize> {
    let mut counts = HashMap::new();
    for job in jobs {
        *counts.entry(job.priority).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn of_a_hundred_single_claims_ten_go_to_lower_priorities_and_of_each_claim_of_ten_one() {
    let system = System::embedding_in_process().await;
    three_priorities(&system).await;
    let mut jobs = Vec::new();
    for _ in 0..100 {
        jobs.extend(claim_ingest(&system).await);
    }
    assert_eq!(count(&jobs), HashMap::from([(10, 90), (0, 9), (-10, 1)]));
    for ten in jobs.chunks(10) {
        assert_eq!(ten.iter().filter(|job| job.priority < 10).count(), 1);
    }

    three_priorities(&system).await;
    let mut all = Vec::new();
    for _ in 0..10 {
        let jobs = claim(&system.store, JobType::IngestData, 10).await;
        assert_eq!(jobs.len(), 10);
        assert_eq!(jobs.iter().filter(|job| job.priority < 10).count(), 1);
        all.extend(jobs);
    }
    assert_eq!(count(&all), HashMap::from([(10, 90), (0, 9), (-10, 1)]));
}

/// The project `articles` in one space, `old` in another.
async fn two_spaces() -> System {
    let system = System::embedding_in_process().await;
    let mut other = system.settings.clone();
    other.embedding.new_space.chunk_tokens /= 2;
    let space = system.store.ensure_space(&other.embedding.new_space).await.unwrap();
    system.store.ensure_project("old", space.id, 1).await.unwrap();
    for project in [PROJECT, "old"] {
        system.put(project, "a", "a text").await;
    }
    ensure(&system).await;
    system
}

#[tokio::test]
async fn spaces_take_turns_and_a_project_that_fills_a_second_one_has_its_turns_in_both() {
    let system = two_spaces().await;
    // One line has been going on for long.
    system
        .run_sql("UPDATE cronvec.job_queue SET turn = 5000 WHERE project = 'old'")
        .await;
    let mut order = Vec::new();
    for _ in 0..20 {
        let job = claim_vectorize(&system).await.unwrap();
        order.push(job.project.clone());
        release(&system, &job).await;
    }
    let old = order.iter().filter(|project| *project == "old").count();
    assert_eq!(old, 10, "{order:?}");

    // `articles` has got far in its own line; it comes new into the line of `old`.
    system
        .run_sql(
            "UPDATE cronvec.job_queue SET turn = 5000 WHERE project = 'articles';
             INSERT INTO cronvec.project_spaces (project_id, space_id, role) SELECT id, 2, 'next' FROM cronvec.projects WHERE name = 'articles';
             SELECT cronvec.put_record('articles', 'b', 'another text')",
        )
        .await;
    ensure(&system).await;
    let second = [Servable {
        space_id: 2,
        endpoint: String::new(),
    }];
    let mut order = Vec::new();
    for _ in 0..10 {
        let job = claim_of(&system.store, JobType::Vectorize, 1, &second)
            .await
            .pop()
            .unwrap();
        order.push(job.project.clone());
        release(&system, &job).await;
    }
    assert_eq!(
        order.iter().filter(|project| *project == PROJECT).count(),
        5,
        "{order:?}"
    );
}

#[tokio::test]
async fn one_pick_in_ten_goes_to_a_lower_priority_in_another_space_too() {
    let system = two_spaces().await;
    system
        .run_sql("UPDATE cronvec.job_queue SET priority = 10 WHERE project = 'articles'")
        .await;
    let mut old = 0;
    for _ in 0..100 {
        let job = claim_vectorize(&system).await.unwrap();
        old += usize::from(job.project == "old");
        release(&system, &job).await;
    }
    assert_eq!(old, 10);
}

#[tokio::test]
async fn a_vectorize_job_ranks_as_the_highest_of_its_due_records() {
    let system = System::embedding_in_process().await;
    system.create_project("other").await;
    system.put(PROJECT, "a", "a text").await;
    system.put("other", "a", "a text").await;
    ensure(&system).await;
    let urgent = of_priority(10);
    let text = cronvec_tests::system::record("b", "an urgent text").to_string();
    let job = NewJob {
        project: "other",
        records: &[text.as_bytes()],
        options: urgent,
    };
    system.store.enqueue(job).await.unwrap();
    system.ingest().await;
    ensure(&system).await;
    let first = claim_vectorize(&system).await.unwrap();
    assert_eq!((first.project.as_str(), first.priority), ("other", 10));
}
