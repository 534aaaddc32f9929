//! Signing in, and what becomes of a session.

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;

use super::{Api, Page};

const BAD: &str = "cvk_0bT0a6H1n0qGq5cZkzq0H1xJm5m0y3Jr2yQ8r2c3b4U";

#[tokio::test]
async fn who_is_unknown_is_told_what_to_do_and_who_signs_in_sees_the_queue() {
    let Some(page) = Page::open(Api::new().await).await else {
        return;
    };
    page.browser.shows("#sign-in", "cronvec token create").await;
    page.browser.click("#sign-in-form button").await;
    page.browser.shows("#sign-in-error", "Enter a token").await;
    page.sign_in(BAD).await;
    page.browser.shows("#sign-in-error", "No such token").await;
    page.browser
        .run("document.querySelector('#token').value = ''", &[])
        .await;
    page.sign_in(page.api.secret(Role::Reader)).await;
    page.browser.shows("#sign-in-error", "may not see the queue").await;
    page.browser
        .run("document.querySelector('#token').value = ''", &[])
        .await;
    page.sign_in(page.api.secret(Role::Manager)).await;
    page.browser.shows("#state-text", "Live").await;
    assert_eq!(page.browser.count("#sign-in").await, 0);
    // A session outlives the window's reload, and ends when it is told to.
    page.browser.reload().await;
    page.browser.shows("#state-text", "Live").await;
    page.browser.click("#sign-out").await;
    page.browser.shows("#sign-in", "API token").await;
    assert_eq!(page.browser.count("#figures").await, 0);
    page.browser.reload().await;
    page.browser.shows("#sign-in", "API token").await;
    // The two refused attempts.
    page.close_but("/admin/login").await;
}

#[tokio::test]
async fn a_session_that_ended_is_told_and_takes_the_figures_away() {
    let Some(page) = Page::of(Api::new().await, Role::Admin).await else {
        return;
    };
    let id = page.api.job(PROJECT, "FAILED").await;
    page.browser.shows("#jobs", &id.to_string()).await;
    page.api
        .system
        .run_sql("UPDATE cronvec.api_tokens SET revoked_at = now()")
        .await;
    page.browser.shows("#sign-in-why", "Your session has ended").await;
    assert_eq!(
        (
            page.browser.count("#figures").await,
            page.browser.count("#jobs tr").await
        ),
        (0, 0)
    );
    page.close_but("401").await;
}

#[tokio::test]
async fn a_manager_sees_all_figures_and_no_acts() {
    let api = super::much::busy().await;
    let Some(page) = Page::of(api, Role::Manager).await else {
        return;
    };
    page.browser.shows("#jobs", "FAILED").await;
    page.browser.shows("#coverage", "pending").await;
    for act in ["Retry", "Cancel", "Pause", "Resume", "Replay"] {
        let script = "return [...document.querySelectorAll('main button')].filter(b => b.checkVisibility() && b.textContent.startsWith(arguments[0])).length";
        assert_eq!(page.browser.run(script, &[act.into()]).await, 0, "{act}");
    }
    page.browser.click("#jobs-rows tr:first-child a").await;
    page.browser.shows("#job", "Timeline").await;
    assert_eq!(page.browser.count("#job button:not(.close)").await, 0);
    assert!(!page.browser.text("#job").await.contains("Payload"));
    page.close_well().await;
}
