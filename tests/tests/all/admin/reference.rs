//! `GET /docs`

use super::Api;

#[tokio::test]
async fn the_reference_shows_every_operation_and_runs_nothing() {
    let api = Api::new().await;
    let document = api.send(api.request("GET", "/api/openapi.json")).await.is(200);
    let response = api.request("GET", "/docs").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("x-content-type-options"), "nosniff");
    let policy = header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
    let page = response.text().await.unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            let summary = operation["summary"].as_str().unwrap();
            assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
            assert!(
                page.contains(path) && page.contains(&format!("<a href=\"#{id}\">")),
                "{path}"
            );
            assert!(page.contains(&summary.replace('&', "&amp;")), "{summary}");
        }
    }
    // Every link within it leads somewhere.
    for link in page.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for foreign in ["<script", "http://", "https://", "src=", " on", "style=\""] {
        let found = page.find(&format!("<{foreign}")).is_some() || (foreign != " on" && page.contains(foreign));
        assert!(!found, "{foreign} is in it");
    }
}
