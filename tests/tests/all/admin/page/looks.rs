//! How it looks and who can use it: light and dark, a phone's screen, by keyboard, for screen readers, whatever the text.

use std::path::PathBuf;

use cronvec_nouns::token::Role;
use cronvec_tests::conditions::eventually;
use cronvec_tests::skipped;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::much::{ARABIC, busy};
use super::{Api, Page};

const PHONE: (u32, u32) = (390, 844);
const GROUND: &str = "return getComputedStyle(document.body).backgroundColor";

#[tokio::test]
async fn dark_follows_the_system_until_somebody_chooses() {
    let Some(page) = Page::of(Api::new().await, Role::Manager).await else {
        return;
    };
    page.browser.prefer("prefers-color-scheme", "light").await;
    let light = page.browser.run(GROUND, &[]).await;
    page.browser.prefer("prefers-color-scheme", "dark").await;
    let dark = page.browser.run(GROUND, &[]).await;
    assert_ne!(light, dark);
    page.browser.click("#theme").await;
    assert_eq!(page.browser.run(GROUND, &[]).await, light);
    page.browser.reload().await;
    page.browser.shows("#state-text", "Live").await;
    assert_eq!(page.browser.run(GROUND, &[]).await, light, "it is remembered");
    page.close_well().await;
}

#[tokio::test]
async fn nothing_is_beside_the_screen_of_a_phone() {
    let Some(page) = Page::open(busy().await).await else {
        return;
    };
    page.browser.resize(PHONE.0, PHONE.1, true).await;
    assert_eq!(page.sideways().await, 0, "signing in");
    page.sign_in(page.api.secret(Role::Admin)).await;
    page.browser.shows("#jobs", "PROCESSING").await;
    assert_eq!(page.sideways().await, 0, "the figures");
    page.browser.click("#jobs-rows tr:first-child a").await;
    page.browser.shows("#job", "Timeline").await;
    let script = "const d = document.querySelector('#job'); return d.scrollWidth - d.clientWidth";
    assert_eq!(
        (page.sideways().await, page.browser.run(script, &[]).await),
        (0, json!(0)),
        "a job"
    );
    page.close_well().await;
}

/// Ten thousand jobs of sixty projects: the page is no longer and no wider, and as quick.
#[tokio::test]
async fn many_jobs_and_projects_leave_the_page_as_it_is() {
    let api = busy().await;
    api.system
        .run_sql(
            "WITH made AS (
                 INSERT INTO cronvec.projects (name, lanes)
                 SELECT 'team-' || lpad(n::text, 3, '0'), p.lanes
                 FROM cronvec.projects p, generate_series(1, 60) AS n WHERE p.name = 'handbook' RETURNING id)
             INSERT INTO cronvec.project_spaces (project_id, space_id, role)
                 SELECT made.id, l.space_id, l.role FROM made, cronvec.project_spaces l JOIN cronvec.projects p ON p.id = l.project_id
                 WHERE p.name = 'handbook';
             INSERT INTO cronvec.job_queue (job_type, project, project_id, status, priority, created_at, scheduled_for)
                 SELECT 'INGEST_DATA', p.name, p.id, 'PENDING', n % 3, now() - n * interval '1 second', now() - n * interval '1 second'
                 FROM generate_series(1, 10000) AS n
                 JOIN LATERAL (SELECT name, id FROM cronvec.projects WHERE name LIKE 'team-%' ORDER BY id OFFSET n % 60 LIMIT 1) AS p ON true;
             ANALYZE cronvec.job_queue",
        )
        .await;
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    page.browser.shows("#stats", "10,0").await;
    page.browser.shows("#jobs", "PENDING").await;
    assert_eq!(page.browser.count("#jobs-rows tr").await, 50);
    assert_eq!(page.sideways().await, 0);
    let height = page
        .browser
        .run("return document.documentElement.scrollHeight", &[])
        .await;
    assert!(height.as_f64().unwrap() < 6_000.0, "{height} pixels");
    page.browser.resize(1120, 2400, false).await;
    page.browser
        .picture(&super::pictures::folder().join("monitor-many.png"))
        .await;
    page.browser.resize(PHONE.0, PHONE.1, true).await;
    assert_eq!(page.sideways().await, 0, "on a phone");
    page.close_well().await;
}

#[tokio::test]
async fn what_others_wrote_is_text_whatever_it_is_and_of_either_direction() {
    let api = busy().await;
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    page.browser
        .shows("#failures", "<img src=x onerror=alert(1)><script>")
        .await;
    page.browser.shows("#coverage", ARABIC).await;
    let script = "return [...document.querySelectorAll('bdi')].filter(e => e.textContent === arguments[0]).map(e => getComputedStyle(e).direction)[0]";
    assert_eq!(page.browser.run(script, &[json!(ARABIC)]).await, "rtl");
    assert_eq!(page.browser.count("main img").await, 0);
    page.close_well().await;
}

#[tokio::test]
async fn everything_is_reached_by_keyboard_and_the_focus_stays_when_figures_move() {
    let api = Api::new().await;
    let id = api.job(PROJECT, "FAILED").await;
    let Some(page) = Page::of(api, Role::Admin).await else {
        return;
    };
    let focus = |key: String| format!("document.querySelector('[data-key=\"{key}\"]').focus()");
    let focused = "return document.activeElement.dataset.key ?? document.activeElement.id";
    page.browser.run(&focus(format!("retry-{id}")), &[]).await;
    page.browser.press("\u{e007}").await;
    eventually("it asks", || async { page.has_dialog().await }).await;
    // What harms least has the focus; a Tab further is the act.
    assert_eq!(page.browser.run(focused, &[]).await, "ask-no");
    page.browser.press("\u{e004}").await;
    assert_eq!(page.browser.run(focused, &[]).await, "ask-yes");
    page.browser.press("\u{e007}").await;
    page.browser.shows(&Page::row(id), "PENDING").await;
    assert!(!page.has_dialog().await);
    page.browser.run(&focus(format!("cancel-{id}")), &[]).await;
    page.api.job(PROJECT, "PENDING").await;
    page.browser.shows(".tile.pending", "2").await;
    assert_eq!(page.browser.run(focused, &[]).await, format!("cancel-{id}"));
    page.api
        .system
        .run_sql(&format!(
            "UPDATE cronvec.job_queue SET status = 'CANCELLED', turn = NULL, completed_at = now() WHERE id = {id}"
        ))
        .await;
    page.browser.shows(&Page::row(id), "CANCELLED").await;
    assert_eq!(
        page.browser.run(focused, &[]).await,
        format!("open-{id}"),
        "the act is over, its job isn't"
    );
    page.browser.shows("#announcer", "").await;
    page.close_well().await;
}

/// Where the checker of accessibility is: `CRONVEC_AXE`, its file.
fn axe() -> Option<String> {
    let path = std::env::var_os("CRONVEC_AXE").map(PathBuf::from)?;
    Some(std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

impl Page {
    /// Nothing that keeps anybody out, by what a program can find.
    async fn is_accessible(&self, axe: &str, what: &str) {
        self.browser.run(axe, &[]).await;
        let found = self
            .browser
            .run_async(
                "const done = arguments[arguments.length - 1];
                 axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})
                     .then(r => done(r.violations.map(v => `${v.impact} ${v.id}: ${v.nodes.map(n => `${n.target} ${n.failureSummary}`).join(' | ')}`)),
                         e => done([String(e)]))",
            )
            .await;
        assert_eq!(found, Value::Array(Vec::new()), "{what}: {found:#}");
    }
}

#[tokio::test]
async fn a_checker_of_accessibility_finds_nothing_in_light_dark_and_on_a_phone() {
    let Some(axe) = axe() else {
        return skipped("CRONVEC_AXE doesn't say where axe-core's axe.min.js is");
    };
    let Some(page) = Page::open(busy().await).await else {
        return;
    };
    page.is_accessible(&axe, "signing in").await;
    page.sign_in(page.api.secret(Role::Admin)).await;
    page.browser.shows("#jobs", "PROCESSING").await;
    for scheme in ["light", "dark"] {
        page.browser.prefer("prefers-color-scheme", scheme).await;
        page.is_accessible(&axe, scheme).await;
        page.browser.click("#jobs-rows tr:first-child a").await;
        page.browser.shows("#job", "Timeline").await;
        page.is_accessible(&axe, &format!("a job, {scheme}")).await;
        page.browser.press("\u{e00c}").await;
        page.browser.click("#coverage button.link").await;
        page.browser.shows("#aside", "too_long").await;
        page.is_accessible(&axe, &format!("records aside, {scheme}")).await;
        page.browser.press("\u{e00c}").await;
        page.browser.click("#hold").await;
        page.is_accessible(&axe, &format!("held, {scheme}")).await;
        page.browser.click("#hold").await;
        page.browser.shows("#state-text", "Live").await;
    }
    page.browser.resize(PHONE.0, PHONE.1, true).await;
    page.is_accessible(&axe, "a phone").await;
    page.close_well().await;
}
