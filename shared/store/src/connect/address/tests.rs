//! Owns the tests of addresses. Refuses to connect to any.

use super::*;

fn tls(url: &str) -> (SslMode, bool) {
    let tls = Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")).tls;
    (tls.mode, tls.any_name)
}

fn message(text: &str) -> String {
    Address::parse(text).err().unwrap().to_string()
}

#[test]
fn loopback_and_sockets_are_asked_for_no_tls_and_others_for_verified_tls() {
    for url in [
        "postgresql://u@localhost/d",
        "postgres://u@127.0.0.1:5433/d",
        "postgresql://u@[::1]/d",
        "postgresql://u@%2Fvar%2Frun%2Fpostgresql/d",
        "postgresql:///d?host=/tmp&user=u",
    ] {
        assert_eq!(tls(url), (SslMode::Disable, false), "{url}");
    }
    for url in [
        "postgresql://u@db.example.com/d",
        "postgresql://u@10.0.0.1/d",
        "postgresql://u@localhost,db/d",
    ] {
        assert_eq!(tls(url), (SslMode::Require, false), "{url}");
    }
}

#[test]
fn every_sslmode_is_understood() {
    for (mode, expected) in [
        ("disable", (SslMode::Disable, false)),
        ("allow", (SslMode::Prefer, false)),
        ("prefer", (SslMode::Prefer, false)),
        ("require", (SslMode::Require, false)),
        ("verify-ca", (SslMode::Require, true)),
        ("verify-full", (SslMode::Require, false)),
    ] {
        assert_eq!(
            tls(&format!("postgresql://u@db.example.com/d?sslmode={mode}")),
            expected,
            "{mode}"
        );
        let local = format!("postgresql://u@localhost/d?sslmode={mode}");
        assert_eq!(tls(&local), expected, "{mode} on loopback");
    }
    assert!(message("postgresql://u@h/d?sslmode=no-verify").contains("verify-full"));
}

#[test]
fn a_root_certificate_asks_for_tls_on_loopback_too() {
    let address = Address::parse("postgresql://u@localhost/d?sslrootcert=/etc/ca%20file.pem").unwrap();
    assert_eq!(address.tls.mode, SslMode::Require);
    assert_eq!(address.tls.roots, Some(Roots::File("/etc/ca file.pem".into())));
}

#[test]
fn roots_are_a_file_or_the_text_itself_and_those_of_the_address_count_first() {
    let pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----";
    let text = Some(Roots::Text(pem.to_owned()));
    let json = serde_json::json!({"host": "h", "username": "u", "password": "p", "sslrootcert": pem}).to_string();
    assert_eq!(Address::parse(&json).unwrap().tls.roots, text);
    let url = "postgresql://u@localhost/d";
    let given = |url: &str, roots: &str| Address::with_roots(url, Some(roots)).unwrap().tls;
    assert_eq!(given(url, &pem.replace('\n', "\\n")).roots, text);
    assert_eq!(given(url, pem).mode, SslMode::Require);
    let file = Some(Roots::File("ca.pem".into()));
    assert_eq!(given(&format!("{url}?sslrootcert=ca.pem"), pem).roots, file);
    assert_eq!(given(&format!("{url}?sslrootcert=system"), pem).roots, None);
    // What isn't one, a wrong secret perhaps, is never taken for a path, which messages repeat.
    assert_eq!(given(url, "hunter2").roots, Some(Roots::Text("hunter2".to_owned())));
}

#[test]
fn options_of_other_clients_are_ignored_and_kept_for_the_warning() {
    let url = "postgresql://u:p@localhost/d?schema=public&pgbouncer=true&connection_limit=1&application_name=x";
    let address = Address::parse(url).unwrap();
    assert_eq!(address.ignored, ["schema", "pgbouncer", "connection_limit"]);
    assert_eq!(address.config.get_application_name(), Some("x"));
}

#[test]
fn what_the_url_says_goes_before_the_defaults() {
    let plain = Address::parse("postgresql://u@localhost/d").unwrap().config;
    assert_eq!(plain.get_application_name(), Some("cronvec"));
    assert_eq!(plain.get_connect_timeout(), Some(&Duration::from_secs(5)));
    assert_eq!(plain.get_keepalives_retries(), Some(3));
    let said = "postgresql://u@localhost/d?connect_timeout=9&keepalives_count=7&options=-c%20geqo=off+x";
    let said = Address::parse(said).unwrap().config;
    assert_eq!(said.get_connect_timeout(), Some(&Duration::from_secs(9)));
    assert_eq!(said.get_keepalives_retries(), Some(7));
    assert_eq!(said.get_options(), Some("-c geqo=off+x"));
}

#[test]
fn an_rds_secret_is_an_address() {
    let json = r#"{"username":"app","password":"p@:/?","engine":"postgres","host":"db.example.com","port":5433,
        "dbname":"shop","dbInstanceIdentifier":"x"}"#;
    let address = Address::parse(json).unwrap();
    assert_eq!(address.label, "db.example.com:5433/shop");
    assert_eq!(address.config.get_password(), Some("p@:/?".as_bytes()));
    assert_eq!(address.tls.mode, SslMode::Require);
    let other = r#"{"username":"app","password":"p","host":"h","port":"6432","database":"shop"}"#;
    assert_eq!(Address::parse(other).unwrap().label, "h:6432/shop");
}

#[test]
fn an_unusable_address_is_explained_without_its_password() {
    for text in [
        "hunter2",
        "mysql://u:hunter2@h/d",
        "postgresql://u:hunter2@h:port/d",
        "postgresql://u:hunter2@/d",
        "postgresql://u:x@hunter2@h/d",
        "{\"password\":\"hunter2\"}",
        "{hunter2}",
        "{\"username\":\"u\",\"password\":\"hunter2\",\"host\":\"h\",\"engine\":\"mysql\"}",
    ] {
        let message = message(text);
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(message("{\"username\":\"u\",\"password\":\"p\"}").contains("no host"));
}
