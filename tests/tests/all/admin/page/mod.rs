//! The queue monitor, in a real Chromium.

mod acts;
mod files;
mod looks;
mod much;
mod pictures;
mod session;
mod watching;

use cronvec_nouns::token::Role;
use cronvec_tests::browser::Browser;
use serde_json::json;

use super::Api;

/// A browser at the page of an API.
struct Page {
    api: Api,
    browser: Browser,
}

impl Page {
    /// None where there is no browser.
    async fn open(api: Api) -> Option<Self> {
        let browser = Browser::start().await?;
        browser.open(&format!("{}/admin/queue-monitor", api.base)).await;
        Some(Self { api, browser })
    }

    /// Signed in with a token of this role.
    async fn of(api: Api, role: Role) -> Option<Self> {
        let page = Self::open(api).await?;
        page.sign_in(page.api.secret(role)).await;
        page.browser.shows("#state-text", "Live").await;
        Some(page)
    }

    async fn sign_in(&self, token: &str) {
        self.browser.write("#token", token).await;
        self.browser.click("#sign-in-form button").await;
    }

    /// Presses the button of this act and says yes.
    async fn act(&self, button: &str, yes: &str) {
        self.browser.click(button).await;
        self.browser.shows("#ask-yes", yes).await;
        self.browser.click("#ask-yes").await;
    }

    /// The job's row in the list.
    fn row(id: i64) -> String {
        format!("#jobs tr[data-item='{id}']")
    }

    /// Ends the browser, after nothing went wrong in it and nobody else was asked for anything.
    async fn close_well(self) {
        self.close_but("").await;
    }

    async fn close_but(self, expected: &str) {
        assert_eq!(self.browser.errors_but(expected).await, Vec::<String>::new());
        let requested = self.browser.requested().await;
        assert!(requested.len() > 20, "{requested:?}");
        for address in requested {
            assert!(address.starts_with(&format!("{}/", self.api.base)), "{address}");
        }
        self.browser.quit().await;
    }

    /// How many pixels of the page are beside the screen.
    async fn sideways(&self) -> i64 {
        let script = "const root = document.scrollingElement; return root.scrollWidth - root.clientWidth";
        self.browser.run(script, &[]).await.as_i64().unwrap()
    }

    /// Whether the page has a dialog open.
    async fn has_dialog(&self) -> bool {
        self.browser
            .run("return !!document.querySelector('dialog[open]')", &[])
            .await
            == json!(true)
    }
}
