//! What the page is made of, as it is served.

use super::Api;

#[tokio::test]
async fn the_page_is_plain_files_that_are_kept_until_they_change_and_let_nothing_in() {
    let api = Api::new().await;
    let page = api.request("GET", "/admin/queue-monitor").send().await.unwrap();
    assert_eq!(
        (page.status().as_u16(), &page.headers()["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    let html = page.text().await.unwrap();
    for inline in ["style=", "<style", "onclick", "http:", "https:", "//"] {
        assert!(!html.contains(inline), "{inline} is in the page");
    }
    assert_eq!(
        html.matches("<script").count(),
        html.matches("<script src=").count() + html.matches("<script type=\"module\" src=").count()
    );
    for (file, kind) in [
        ("monitor.css", "text/css; charset=utf-8"),
        ("main.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let path = format!("/admin/queue-monitor/{file}");
        let first = api.request("GET", &path).send().await.unwrap();
        let headers = first.headers().clone();
        assert_eq!(
            (first.status().as_u16(), headers["content-type"].to_str().unwrap()),
            (200, kind)
        );
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';")
                && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(
            (&headers["x-content-type-options"], &headers["cache-control"]),
            (&"nosniff".parse().unwrap(), &"no-cache".parse().unwrap())
        );
        let tag = headers["etag"].to_str().unwrap();
        let again = api
            .request("GET", &path)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        assert_eq!(
            (again.status().as_u16(), again.text().await.unwrap().as_str()),
            (304, "")
        );
    }
    for path in [
        "/admin/queue-monitor/",
        "/admin/queue-monitor/..%2fCargo.toml",
        "/admin/queue-monitor/none.js",
    ] {
        assert_eq!(
            api.request("GET", path).send().await.unwrap().status().as_u16(),
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_module_that_another_imports_is_served() {
    let api = Api::new().await;
    let (mut known, mut left) = (vec!["main.js".to_owned()], vec!["main.js".to_owned()]);
    while let Some(file) = left.pop() {
        let answer = api
            .request("GET", &format!("/admin/queue-monitor/{file}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{file}");
        let text = answer.text().await.unwrap();
        assert!(
            !text.contains("innerHTML") && !text.contains("outerHTML") && !text.contains("insertAdjacentHTML"),
            "{file}"
        );
        for import in text.split("from \"./").skip(1) {
            let name = import.split('"').next().unwrap().to_owned();
            if !known.contains(&name) {
                known.push(name.clone());
                left.push(name);
            }
        }
    }
    assert!(known.len() > 15, "{known:?}");
}
