//! Who may do what, for every operation that the document has.

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::Api;

/// An operation that is needed to call it, and the roles that may.
pub(super) struct Operation {
    pub method: &'static str,
    /// As the document has it.
    pub path: &'static str,
    /// As it is called.
    pub call: &'static str,
    pub body: Option<Value>,
    pub roles: &'static [Role],
}

const READS: &[Role] = &[Role::Reader, Role::Producer, Role::Admin];
const WRITES: &[Role] = &[Role::Producer, Role::Admin];
const WATCHES: &[Role] = &[Role::Manager, Role::Admin];
const ACTS: &[Role] = &[Role::Admin];

/// Every one that needs a token.
pub(super) fn operations() -> Vec<Operation> {
    let op = |method, path: &'static str, call: &'static str, body, roles| Operation {
        method,
        path,
        call: if call.is_empty() { path } else { call },
        body,
        roles,
    };
    let record = "/api/projects/{project}/records/{id}";
    let one = "/api/projects/articles/records/a";
    let search = json!({"project": PROJECT, "query": "x"});
    let ingest = json!({"project": PROJECT, "records": [{"id": "a", "content": "one"}]});
    vec![
        op("GET", "/api/me", "", None, &Role::ALL),
        op("POST", "/api/ingest", "", Some(ingest), WRITES),
        op(
            "POST",
            "/api/ingest/jobs",
            "",
            Some(json!({"project": PROJECT})),
            WRITES,
        ),
        op(
            "PUT",
            "/api/ingest/jobs/{id}/bodies/{body}",
            "/api/ingest/jobs/1/bodies/1",
            Some(json!({})),
            WRITES,
        ),
        op(
            "POST",
            "/api/ingest/jobs/{id}/close",
            "/api/ingest/jobs/1/close",
            Some(json!({"bodies": 1})),
            WRITES,
        ),
        op("PUT", record, one, Some(json!({"content": "one"})), WRITES),
        op("GET", record, one, None, READS),
        op("DELETE", record, one, None, WRITES),
        op("POST", "/api/search", "", Some(search), READS),
        op("GET", "/api/admin/queue/stats", "", None, WATCHES),
        op(
            "POST",
            "/api/admin/queue/retry",
            "/api/admin/queue/retry?jobId=1",
            None,
            ACTS,
        ),
        op(
            "POST",
            "/api/admin/queue/cancel",
            "/api/admin/queue/cancel?jobId=1",
            None,
            ACTS,
        ),
        op("GET", "/api/admin/jobs", "", None, WATCHES),
        op("GET", "/api/admin/jobs/{id}", "/api/admin/jobs/1", None, WATCHES),
        op("POST", "/api/admin/jobs/retry", "", Some(json!({"filter": {}})), ACTS),
        op("POST", "/api/admin/jobs/cancel", "", Some(json!({"filter": {}})), ACTS),
        op("GET", "/api/admin/failures", "", None, WATCHES),
        op("GET", "/api/admin/failures/details", "", None, WATCHES),
        op("GET", "/api/admin/figures", "", None, WATCHES),
        op("GET", "/api/admin/quarantine", "", None, WATCHES),
        op(
            "POST",
            "/api/admin/quarantine/replay",
            "",
            Some(json!({"project": PROJECT})),
            ACTS,
        ),
        op(
            "POST",
            "/api/admin/quarantine/purge",
            "",
            Some(json!({"project": PROJECT})),
            ACTS,
        ),
        op("POST", "/api/admin/pause", "", Some(json!({"project": PROJECT})), ACTS),
        op("POST", "/api/admin/resume", "", Some(json!({"project": PROJECT})), ACTS),
        op("GET", "/api/admin/projects", "", None, WATCHES),
        op("POST", "/api/admin/projects", "", Some(json!({"name": PROJECT})), ACTS),
        op("GET", "/api/admin/coverage", "", None, WATCHES),
        op("GET", "/api/admin/throughput", "", None, WATCHES),
        op("GET", "/api/admin/endpoints", "", None, WATCHES),
        op("GET", "/api/admin/audit", "", None, WATCHES),
        op("GET", "/api/admin/health", "", None, WATCHES),
        op("GET", "/api/admin/monitor", "", None, WATCHES),
        op("GET", "/api/admin/backfill", "", None, WATCHES),
        op(
            "POST",
            "/api/admin/backfill",
            "",
            Some(json!({"project": PROJECT})),
            ACTS,
        ),
        op("POST", "/api/admin/backfill/stop", "", Some(json!({})), ACTS),
        op("GET", "/api/admin/tokens", "", None, ACTS),
        op(
            "POST",
            "/api/admin/tokens",
            "",
            Some(json!({"name": "x", "role": "reader"})),
            ACTS,
        ),
        op("DELETE", "/api/admin/tokens/{id}", "/api/admin/tokens/999", None, ACTS),
    ]
}

#[tokio::test]
async fn every_operation_refuses_who_has_no_token_and_every_role_that_may_not() {
    let api = Api::new().await;
    for operation in operations() {
        let Operation {
            method,
            call,
            body,
            roles,
            ..
        } = operation;
        let mut request = api.request(method, call);
        if let Some(body) = &body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        assert_eq!(api.send(request).await.status, 401, "{method} {call}");
        for role in Role::ALL {
            let answer = api.call(api.secret(role), method, call, body.clone()).await;
            let is_refused = answer.status == 403;
            assert_eq!(
                is_refused,
                !roles.contains(&role),
                "{method} {call} as {role}: {answer:?}"
            );
            assert!(answer.status < 500, "{method} {call} as {role}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_token_of_another_project_reaches_nothing_that_names_this_one() {
    let api = Api::new().await;
    api.system.create_project("other").await;
    for operation in operations() {
        let Operation {
            method,
            call,
            body,
            roles,
            ..
        } = operation;
        let names_it = call.contains(PROJECT) || body.as_ref().is_some_and(|body| body.to_string().contains(PROJECT));
        if !names_it {
            continue;
        }
        let limited = api.limited(*roles.last().unwrap(), &["other"]).await;
        api.call(&limited, method, call, body).await.is(403);
    }
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 0);
}
