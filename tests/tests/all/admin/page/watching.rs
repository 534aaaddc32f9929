//! Figures that move while one looks, and what is said when they can't.

use cronvec_nouns::token::Role;
use cronvec_tests::proxy::Proxy;
use cronvec_tests::system::PROJECT;

use super::{Api, Page};

#[tokio::test]
async fn a_job_goes_from_pending_to_completed_without_reloading() {
    let Some(page) = Page::of(Api::new().await, Role::Manager).await else {
        return;
    };
    page.browser.shows("#jobs-none", "No jobs yet").await;
    page.browser.run("window.isTheSame = true", &[]).await;
    let id = page.api.job(PROJECT, "PENDING").await;
    page.browser.shows(&Page::row(id), "PENDING").await;
    page.browser.shows(".tile.pending", "1").await;
    assert_eq!(page.api.system.ingest().await.processed, 1);
    page.browser.shows(&Page::row(id), "COMPLETED").await;
    page.browser.shows(&Page::row(id), "1 saved").await;
    page.browser.shows(".tile.oldest", "None").await;
    page.api.system.vectorize().await;
    page.browser.shows("#coverage", "100 %").await;
    page.browser.shows("#workers", "vectorization").await;
    page.browser.shows("#throughput", "1 record embedded").await;
    assert_eq!(page.browser.run("return window.isTheSame", &[]).await, true);
    page.close_well().await;
}

#[tokio::test]
async fn held_figures_stay_as_they_are_and_say_so() {
    let Some(page) = Page::of(Api::new().await, Role::Manager).await else {
        return;
    };
    page.browser.click("#hold").await;
    page.browser.shows("#state-text", "Held, as of").await;
    assert_eq!(page.browser.count("#figures.stale").await, 1);
    let id = page.api.job(PROJECT, "PENDING").await;
    let asked =
        "return performance.getEntriesByType('resource').filter(e => e.name.includes('/api/admin/monitor')).length";
    let before = page.browser.run(asked, &[]).await;
    // Longer than a refresh, by the page's own clock.
    page.browser
        .run_async("setTimeout(arguments[arguments.length - 1], 6000)")
        .await;
    assert_eq!(page.browser.run(asked, &[]).await, before);
    assert_eq!(page.browser.count(&Page::row(id)).await, 0);
    page.browser.click("#hold").await;
    page.browser.shows(&Page::row(id), "PENDING").await;
    page.browser.shows("#state-text", "Live").await;
    assert_eq!(page.browser.count("#figures.stale").await, 0);
    page.close_well().await;
}

#[tokio::test]
async fn a_page_that_lost_contact_says_so_greys_its_figures_and_comes_back_by_itself() {
    let mut api = Api::new().await;
    let mut proxy = Proxy::to(api.base.strip_prefix("http://").unwrap().parse().unwrap()).await;
    api.base = format!("http://{}", proxy.address());
    let Some(page) = Page::of(api, Role::Manager).await else {
        return;
    };
    proxy.close().await;
    page.browser.shows("#state-text", "No contact").await;
    assert_eq!(page.browser.count("#figures.stale").await, 1);
    proxy.open();
    page.browser.shows("#state-text", "Live").await;
    assert_eq!(page.browser.count("#figures.stale").await, 0);
    page.close_but("ERR_").await;
}
