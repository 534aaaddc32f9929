//! Logging in without a password.

use std::collections::HashMap;

use cronvec_tests::iam::IamServer;
use serde_json::json;

use super::{Deployment, SECRET, direct, function_error, has};

const IAM: [(&str, &str); 5] = [
    ("DATABASE_IAM_AUTH", "true"),
    ("AWS_REGION", "eu-north-1"),
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "a-secret-key-of-this-test"),
    ("AWS_SESSION_TOKEN", "a-session/of+this=test"),
];

#[tokio::test]
async fn each_connection_shows_a_token_that_is_signed_for_it() {
    let mut deployment = Deployment::new().await;
    deployment.put(3).await;
    let server = IamServer::before(deployment.system.database.name()).await;
    let address = format!("postgresql://app@localhost:{}/any", server.port());
    deployment.set("DATABASE_URL", &address);
    for (name, value) in IAM {
        deployment.set(name, value);
    }
    let mut function = deployment.function("vectorization").await;
    has(
        &function.invoke(direct(SECRET)).await.unwrap(),
        json!({"success": true, "records": 3}),
    );
    let said = function.end().await;
    let tokens = server.tokens();
    assert!(!tokens.is_empty());
    for token in &tokens {
        assert!(
            token.starts_with(&format!("localhost:{}/?Action=connect&DBUser=app&", server.port())),
            "{token}"
        );
        let address = reqwest::Url::parse(&format!("https://{token}")).unwrap();
        let says: HashMap<_, _> = address.query_pairs().into_owned().collect();
        assert!(says["X-Amz-Credential"].starts_with("AKIDEXAMPLE/"), "{token}");
        assert!(
            says["X-Amz-Credential"].ends_with("/eu-north-1/rds-db/aws4_request"),
            "{token}"
        );
        assert_eq!(
            (says["X-Amz-Expires"].as_str(), says["X-Amz-SignedHeaders"].as_str()),
            ("900", "host")
        );
        assert_eq!(says["X-Amz-Security-Token"], "a-session/of+this=test");
        assert_eq!(says["X-Amz-Signature"].len(), 64);
        assert!(!said.contains(&says["X-Amz-Signature"]), "it is a password");
    }
}

#[tokio::test]
async fn no_token_leaves_in_clear() {
    let mut deployment = Deployment::new().await;
    for (name, value) in IAM {
        deployment.set(name, value);
    }
    for (address, why) in [
        (
            "postgresql://app@db.c9akciq32.eu-north-1.rds.amazonaws.com/kb?sslmode=disable",
            "asks for no TLS",
        ),
        (
            "postgresql://app@db.c9akciq32.eu-north-1.rds.amazonaws.com/kb?sslmode=prefer",
            "asks for no TLS",
        ),
        ("postgresql://localhost/kb", "names no user"),
    ] {
        let mut function = deployment.set("DATABASE_URL", address).function("vectorization").await;
        let (_, message) = function_error(function.invoke(direct(SECRET)).await);
        assert!(
            message.contains("DATABASE_IAM_AUTH") && message.contains(why),
            "{message}"
        );
        function.end().await;
    }
}
