//! The pictures in `docs/images/`, of the real thing.

use std::path::PathBuf;

use shared::token::Role;

use super::Page;
use super::much::busy;

/// Where they are wanted, or a place that nobody looks at.
pub(super) fn folder() -> PathBuf {
    std::env::var_os("CRONVEC_PICTURES").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
}

#[tokio::test]
async fn pictures_of_the_page_are_made() {
    let Some(page) = Page::open(busy().await).await else {
        return;
    };
    let (browser, folder) = (&page.browser, folder());
    let top = "document.activeElement.blur(); scrollTo(0, 0)";
    browser.prefer("prefers-color-scheme", "light").await;
    page.sign_in(page.api.secret(Role::Admin)).await;
    browser.shows("#jobs", "PROCESSING").await;
    browser.resize(1120, 1060, false).await;
    browser.run(top, &[]).await;
    browser.picture(&folder.join("monitor-light.png")).await;
    browser.prefer("prefers-color-scheme", "dark").await;
    browser.picture(&folder.join("monitor-dark.png")).await;
    browser.resize(1000, 760, false).await;
    browser.prefer("prefers-color-scheme", "light").await;
    browser.choose("[name=status]", "FAILED").await;
    browser.click("#jobs-rows tr:first-child a").await;
    browser.shows("#job", "Timeline").await;
    browser.picture(&folder.join("monitor-job.png")).await;
    browser.press("\u{e00c}").await;
    browser.click("#clear").await;
    browser.resize(390, 1000, true).await;
    browser.run(top, &[]).await;
    browser.picture(&folder.join("monitor-phone.png")).await;
    page.browser.quit().await;
    for name in ["light", "dark", "job", "phone"] {
        let size = std::fs::metadata(folder.join(format!("monitor-{name}.png")))
            .unwrap()
            .len();
        assert!((10_000..150_000).contains(&size), "{name} has {size} bytes");
    }
}
