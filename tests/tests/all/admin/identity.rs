//! Who gets in, by token and by session, and who doesn't.

use cronvec_nouns::token::Role;
use cronvec_tests::conditions::{eventually, eventually_some};
use cronvec_tests::system::System;
use reqwest::header::{AUTHORIZATION, COOKIE, ORIGIN};
use serde_json::json;

use super::{Answer, Api, PUBLIC_URL};

/// The cookie of a new session.
async fn sign_in(api: &Api, role: Role) -> String {
    let answer = api.post(role, "/admin/login", json!({"token": api.secret(role)})).await;
    let cookie = answer.header("set-cookie").to_owned();
    answer.is(200);
    cookie.split(';').next().unwrap().to_owned()
}

async fn with_cookie(api: &Api, method: &str, path: &str, cookie: &str, origin: Option<&str>) -> Answer {
    let mut request = api.request(method, path).header(COOKIE, cookie);
    if let Some(origin) = origin {
        request = request.header(ORIGIN, origin);
    }
    api.send(request).await
}

#[tokio::test]
async fn a_token_says_who_calls_and_its_use_is_noted_once_a_minute() {
    let api = Api::new().await;
    let me = api.get(Role::Manager, "/api/me").await.is(200);
    assert_eq!(me, json!({"name": "manager", "role": "manager", "projects": null}));
    let used = "SELECT last_used_at::text FROM cronvec.api_tokens WHERE name = 'manager'";
    let first = api.system.value(used).await;
    assert!(first.is_string());
    api.get(Role::Manager, "/api/me").await.is(200);
    assert_eq!(api.system.value(used).await, first);
    api.system
        .run_sql("UPDATE cronvec.api_tokens SET last_used_at = now() - interval '61 seconds'")
        .await;
    api.get(Role::Manager, "/api/me").await.is(200);
    assert_ne!(api.system.value(used).await, first);
}

#[tokio::test]
async fn nobody_gets_in_without_a_token_or_with_one_that_is_wrong_revoked_or_over() {
    let api = Api::new().await;
    let none = api.send(api.request("GET", "/api/me")).await;
    assert_eq!(none.header("www-authenticate"), "Bearer");
    none.is(401);
    for wrong in [
        "",
        "cvk_",
        "cvk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "' OR true --",
    ] {
        api.call(wrong, "GET", "/api/me", None).await.is(401);
    }
    let basic = api
        .request("GET", "/api/me")
        .basic_auth("cvk_", Some(api.secret(Role::Admin)));
    api.send(basic).await.is(401);
    api.system
        .run_sql(
            "UPDATE cronvec.api_tokens SET revoked_at = now() WHERE name = 'admin';
             UPDATE cronvec.api_tokens SET expires_at = now() - interval '1 second' WHERE name = 'reader'",
        )
        .await;
    api.get(Role::Admin, "/api/me").await.is(401);
    api.get(Role::Reader, "/api/me").await.is(401);
    let kept = "SELECT count(*) FROM cronvec.api_tokens WHERE to_jsonb(api_tokens)::text LIKE '%' || $$KEY$$ || '%'";
    let secret = api.secret(Role::Manager);
    assert_eq!(
        api.system.count(&kept.replace("KEY", secret)).await,
        0,
        "no secret is kept"
    );
}

#[tokio::test]
async fn a_token_in_an_address_is_refused_also_a_good_one() {
    let api = Api::new().await;
    let secret = api.secret(Role::Admin).to_owned();
    for path in [
        format!("/api/me?token={secret}"),
        format!("/api/me?x={secret}"),
        "/api/me?access_token=x".to_owned(),
        format!("/api/{secret}"),
    ] {
        let refused = api.get(Role::Admin, &path).await.is(400);
        assert!(
            refused["error"].as_str().unwrap().contains("ends up in logs"),
            "{refused}"
        );
        assert!(!refused.to_string().contains(&secret));
    }
}

#[tokio::test]
async fn a_token_is_traded_for_a_session_that_only_the_page_can_act_with() {
    let api = Api::in_production().await;
    let answer = api
        .post(Role::Admin, "/admin/login", json!({"token": api.secret(Role::Admin)}))
        .await;
    let cookie = answer.header("set-cookie").to_owned();
    for part in [
        "__Host-cronvec=",
        "; Path=/;",
        "Max-Age=43200",
        "Secure",
        "HttpOnly",
        "SameSite=Strict",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let signed_in = answer.is(200);
    assert_eq!(
        (&signed_in["role"], &signed_in["name"]),
        (&json!("admin"), &json!("admin"))
    );
    assert!(!cookie.contains("cvk_"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    with_cookie(&api, "GET", "/api/me", cookie, None).await.is(200);
    with_cookie(&api, "POST", "/admin/logout", cookie, None).await.is(403);
    with_cookie(
        &api,
        "POST",
        "/admin/logout",
        cookie,
        Some("https://elsewhere.example.com"),
    )
    .await
    .is(403);
    with_cookie(&api, "POST", "/admin/logout", cookie, Some("null"))
        .await
        .is(403);
    let out = with_cookie(&api, "POST", "/admin/logout", cookie, Some(PUBLIC_URL)).await;
    assert!(
        out.header("set-cookie")
            .starts_with("__Host-cronvec=; Path=/; Max-Age=0"),
        "{out:?}"
    );
    out.is(200);
}

#[tokio::test]
async fn a_session_is_dead_when_its_token_is_revoked_its_time_is_over_or_it_was_changed() {
    let api = Api::new().await;
    let cookie = sign_in(&api, Role::Manager).await;
    with_cookie(&api, "GET", "/api/me", &cookie, None).await.is(200);
    let (name, value) = cookie.split_once('=').unwrap();
    let parts: Vec<&str> = value.split('.').collect();
    let admins: i64 = api
        .system
        .count("SELECT id::bigint FROM cronvec.api_tokens WHERE name = 'admin'")
        .await;
    for changed in [
        format!("{name}={admins}.{}.{}", parts[1], parts[2]),
        format!("{name}={}.9{}.{}", parts[0], parts[1], parts[2]),
        format!("{name}={value}x"),
        format!("{name}=; {name}=1.2.3"),
        format!("{cookie}; {cookie}"),
        format!("__host-cronvec={value}"),
    ] {
        with_cookie(&api, "GET", "/api/me", &changed, None).await.is(401);
    }
    api.system
        .run_sql("UPDATE cronvec.api_tokens SET revoked_at = now() WHERE name = 'manager'")
        .await;
    with_cookie(&api, "GET", "/api/me", &cookie, None).await.is(401);
}

#[tokio::test]
async fn the_page_is_for_managers_and_admins_and_no_other_page_signs_anybody_in() {
    let api = Api::in_production().await;
    for role in [Role::Reader, Role::Producer] {
        let refused = api.post(role, "/admin/login", json!({"token": api.secret(role)})).await;
        assert_eq!(refused.header("set-cookie"), "");
        refused.is(403);
    }
    let body = json!({"token": api.secret(Role::Manager)}).to_string();
    let elsewhere = api
        .request("POST", "/admin/login")
        .header(ORIGIN, "https://elsewhere.example.com")
        .header("content-type", "application/json")
        .body(body.clone());
    api.send(elsewhere).await.is(403);
    // A form of another page can send this without asking.
    let form = api
        .request("POST", "/admin/login")
        .header("content-type", "text/plain")
        .body(body);
    api.send(form).await.is(415);
}

#[tokio::test]
async fn failed_attempts_slow_their_address_and_nobody_whose_token_is_known() {
    let api = Api::new().await;
    api.get(Role::Manager, "/api/me").await.is(200);
    for _ in 0..10 {
        api.post(Role::Admin, "/admin/login", json!({"token": "cvk_wrong"}))
            .await
            .is(401);
    }
    let slowed = api
        .post(Role::Admin, "/admin/login", json!({"token": "cvk_wrong"}))
        .await;
    let seconds: u64 = slowed.header("retry-after").parse().unwrap();
    assert!((1..=6).contains(&seconds));
    slowed.is(429);
    api.get(Role::Manager, "/api/me").await.is(200);
    let from_elsewhere = api
        .request("GET", "/api/me")
        .header("x-forwarded-for", "203.0.113.9, 198.51.100.7")
        .header(AUTHORIZATION, "Bearer cvk_wrong");
    api.send(from_elsewhere).await.is(401);
}

/// An API that a token may call six times at once, and then once in ten seconds.
async fn limited() -> Api {
    Api::of(System::with(&[("API_RATE_LIMIT", "6")]).await).await
}

/// Calls until one comes too early; how long it is told to wait.
async fn use_up(api: &Api, role: Role) -> u64 {
    let refused = eventually_some("a call comes too early", || async {
        let answer = api.get(role, "/api/me").await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    let seconds = refused.header("retry-after").parse().unwrap();
    let error = refused.is(429)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("too many calls with this token"), "{error}");
    seconds
}

#[tokio::test]
async fn a_token_that_calls_too_often_has_to_wait_and_nobody_else_has() {
    let api = Api::of(System::with(&[("API_RATE_LIMIT", "60")]).await).await;
    let cookie = sign_in(&api, Role::Manager).await;
    assert_eq!(use_up(&api, Role::Manager).await, 1, "one more is allowed each second");
    api.get(Role::Admin, "/api/me").await.is(200);
    with_cookie(&api, "GET", "/api/me", &cookie, None).await.is(200);
    eventually("the token is let in again", || async {
        api.get(Role::Manager, "/api/me").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn all_sessions_of_a_token_are_counted_together() {
    let api = limited().await;
    let (one, other) = (sign_in(&api, Role::Manager).await, sign_in(&api, Role::Manager).await);
    for _ in 0..6 {
        with_cookie(&api, "GET", "/api/me", &one, None).await.is(200);
    }
    with_cookie(&api, "GET", "/api/me", &other, None).await.is(429);
    api.get(Role::Manager, "/api/me").await.is(200);
}

#[tokio::test]
async fn a_session_is_begun_no_more_often_than_its_token_may_call() {
    let api = limited().await;
    use_up(&api, Role::Manager).await;
    let login = json!({"token": api.secret(Role::Manager)});
    api.post(Role::Manager, "/admin/login", login).await.is(429);
}

#[tokio::test]
async fn no_limit_is_none() {
    let api = Api::of(System::with(&[("API_RATE_LIMIT", "0")]).await).await;
    for _ in 0..100 {
        api.get(Role::Manager, "/api/me").await.is(200);
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_browsers_out_of_trouble() {
    let (development, production) = (Api::new().await, Api::in_production().await);
    for path in ["/api/health", "/api/me", "/elsewhere", "/api/openapi.json"] {
        let answer = production.get(Role::Manager, path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; frame-ancestors 'none'"
        );
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.header("strict-transport-security").starts_with("max-age="));
        let answer = development.get(Role::Manager, path).await;
        assert_eq!(answer.header("strict-transport-security"), "");
    }
}
