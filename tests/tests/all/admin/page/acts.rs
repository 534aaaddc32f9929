//! What an admin does on the page, and what becomes of it.

use cronvec_nouns::token::Role;
use cronvec_tests::conditions::eventually;
use cronvec_tests::system::PROJECT;

use super::{Api, Page};

impl Page {
    async fn status_of(&self, id: i64) -> String {
        let sql = format!("SELECT status FROM cronvec.job_queue WHERE id = {id}");
        self.api.system.value(&sql).await.as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_failed_job_is_retried_and_a_pending_one_cancelled_after_a_question() {
    let api = Api::new().await;
    let (failed, pending) = (api.job(PROJECT, "FAILED").await, api.job(PROJECT, "PENDING").await);
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    page.browser.shows("#failures", "it broke").await;
    // Who goes back has done nothing.
    page.browser.click(&format!("[data-key=retry-{failed}]")).await;
    page.browser.shows("#ask", &format!("Retry job {failed}?")).await;
    page.browser.click("#ask-no").await;
    assert_eq!(
        (page.has_dialog().await, page.status_of(failed).await),
        (false, "FAILED".into())
    );
    page.act(&format!("[data-key=retry-{failed}]"), "Retry").await;
    page.browser
        .shows("#notices", &format!("Job {failed} is in the queue again."))
        .await;
    page.browser.shows(&Page::row(failed), "PENDING").await;
    page.act(&format!("[data-key=cancel-{pending}]"), "Cancel the job")
        .await;
    page.browser.shows(&Page::row(pending), "CANCELLED").await;
    assert_eq!(
        (page.status_of(failed).await, page.status_of(pending).await),
        ("PENDING".into(), "CANCELLED".into())
    );
    page.close_well().await;
}

#[tokio::test]
async fn an_act_that_is_refused_says_why_and_leaves_the_question_open() {
    let api = Api::new().await;
    let id = api.job(PROJECT, "PENDING").await;
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    page.browser.click(&format!("[data-key=cancel-{id}]")).await;
    page.browser.shows("#ask", "Cancel job").await;
    page.api.system.ingest().await;
    page.browser.click("#ask-yes").await;
    page.browser.shows("#ask-error", "It wasn’t done").await;
    page.close_but("status of 4").await;
}

#[tokio::test]
async fn a_project_and_everything_are_paused_and_resumed() {
    let api = Api::new().await;
    api.system.create_project("other").await;
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    let paused = || {
        page.api
            .system
            .count("SELECT count(*) FROM cronvec.projects WHERE paused")
    };
    page.act(&format!("[data-key=pause-{PROJECT}]"), "Pause").await;
    page.browser
        .shows(&format!("#coverage [data-item='{PROJECT}']"), "paused")
        .await;
    assert_eq!(paused().await, 1);
    page.act("#pause-all button", "Pause").await;
    page.browser.shows("#notices", "Every project is paused").await;
    assert_eq!(paused().await, 2);
    page.act("#pause-all button", "Resume").await;
    eventually("all go on", || async { paused().await == 0 }).await;
    page.browser.shows("#notices", "2 projects resumed").await;
    eventually("it isn't said any more", || async {
        !page.browser.text("#notices").await.contains("Every project is paused")
    })
    .await;
    page.close_well().await;
}

#[tokio::test]
async fn many_are_retried_and_cancelled_by_filter() {
    let api = Api::new().await;
    api.system.create_project("other").await;
    let mut failed = Vec::new();
    for project in [PROJECT, "other", "other"] {
        failed.push(api.job(project, "FAILED").await);
    }
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    page.browser.shows("#jobs", "FAILED").await;
    page.browser.choose("[name=status]", "FAILED").await;
    page.browser.choose("[name=project]", "other").await;
    eventually("two are shown", || async {
        page.browser.count("#jobs-rows tr").await == 2
    })
    .await;
    page.act("[data-key=retry-all]", "Retry all").await;
    page.browser.shows("#notices", "2 jobs in the queue again.").await;
    page.browser.shows("#jobs-none", "No job is like that").await;
    assert_eq!(
        (page.status_of(failed[0]).await, page.status_of(failed[1]).await),
        ("FAILED".into(), "PENDING".into())
    );
    page.browser.click("#clear").await;
    page.act("[data-key=cancel-all]", "Cancel all").await;
    page.browser.shows("#notices", "2 jobs cancelled.").await;
    assert_eq!(page.status_of(failed[2]).await, "CANCELLED");
    page.close_well().await;
}

#[tokio::test]
async fn records_that_stand_aside_are_shown_with_their_reason_and_replayed() {
    let api = super::much::busy().await;
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    let aside = || {
        page.api
            .system
            .count("SELECT count(*) FROM cronvec.quarantined_records")
    };
    let before = aside().await;
    assert!(before > 1);
    page.browser.click("#coverage button.link").await;
    page.browser.shows("#aside", "too_long").await;
    page.act("[data-key='replay-too_long']", "Replay").await;
    page.browser.shows("#notices", "replayed").await;
    let after = aside().await;
    assert!(after > 0 && after < before, "{after} of {before}");
    page.close_well().await;
}

#[tokio::test]
async fn one_job_is_found_by_its_id_and_its_payload_shown_only_when_asked_for() {
    let api = super::much::busy().await;
    let id = api.job(PROJECT, "FAILED").await;
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    page.browser.write("[name=search]", &id.to_string()).await;
    eventually("one is shown", || async {
        page.browser.count("#jobs-rows tr").await == 1
    })
    .await;
    page.browser.click(&format!("[data-key=open-{id}]")).await;
    page.browser.shows("#job", "it broke").await;
    page.browser.shows("#job .timeline", "failed").await;
    page.browser.shows("#job", "3 of 3").await;
    assert!(!page.browser.text("#job").await.contains("\"content\""));
    page.browser.click("[data-key=payload]").await;
    page.browser.shows("#job pre", "records").await;
    // The address is the job's, and can be passed on.
    page.browser.reload().await;
    page.browser.shows("#job", &format!("Job {id}")).await;
    assert_eq!(page.browser.text("#job pre").await.matches("records").count(), 0);
    page.browser.press("\u{e00c}").await;
    eventually("Escape closes it", || async { !page.has_dialog().await }).await;
    page.close_well().await;
}

#[tokio::test]
async fn the_list_is_turned_page_by_page() {
    let api = Api::new().await;
    api.system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, completed_at)
             SELECT 'INGEST_DATA', p.name, p.id, 'COMPLETED', now() FROM cronvec.projects p, generate_series(1, 120)",
        )
        .await;
    let Some(page) = Page::of(api, Role::Manager).await else {
        return;
    };
    let first = page.browser.text("#jobs-rows tr:first-child a").await;
    for (page_text, rows) in [("Page 2", 50), ("Page 3", 20)] {
        page.browser.click("#older").await;
        page.browser.shows("#page-text", page_text).await;
        eventually("it is drawn", || async {
            page.browser.count("#jobs-rows tr").await == rows
        })
        .await;
    }
    assert_eq!(
        page.browser
            .run("return document.querySelector('#older').disabled", &[])
            .await,
        true
    );
    page.browser.click("#newest").await;
    page.browser.shows("#jobs-rows tr:first-child a", &first).await;
    page.close_well().await;
}
