use reqwest::header::HeaderValue;

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn wait(pairs: &[(&'static str, &'static str)]) -> Option<Duration> {
    retry_after(&headers(pairs))
}

#[test]
fn retry_after_is_read_as_seconds_and_as_a_date() {
    assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
    assert_eq!(wait(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
    assert_eq!(
        wait(&[("retry-after-ms", "250"), ("retry-after", "1")]),
        Some(Duration::from_millis(250))
    );
    let date = [
        ("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT"),
        ("date", "Wed, 21 Oct 2026 07:28:00 GMT"),
    ];
    assert_eq!(
        wait(&date),
        Some(Duration::from_secs(30)),
        "against the answer's own clock"
    );
    for obsolete in ["Wednesday, 21-Oct-26 07:28:30 GMT", "Wed Oct 21 07:28:30 2026"] {
        let date = [("retry-after", obsolete), date[1]];
        assert_eq!(wait(&date), Some(Duration::from_secs(30)), "{obsolete}");
    }
}

#[test]
fn a_wait_that_is_none_is_no_answer_and_none_is_endless() {
    for nothing in ["-1", "0", "soon", "", "NaN"] {
        assert_eq!(wait(&[("retry-after", nothing)]), None, "{nothing:?}");
    }
    let past = [
        ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ("date", "Wed, 21 Oct 2026 07:28:30 GMT"),
    ];
    assert_eq!(wait(&past), None);
    assert_eq!(wait(&[("retry-after", "99999999999")]), Some(LONGEST_PAUSE));
}

#[test]
fn rate_limit_headers_are_read_where_nothing_else_is_said() {
    for (text, millis) in [
        ("1s", 1_000),
        ("6m0s", 360_000),
        ("20ms", 20),
        ("1h2m3s", 3_723_000),
        ("8.64s", 8_640),
    ] {
        assert_eq!(
            wait(&[("x-ratelimit-reset-requests", text)]),
            Some(Duration::from_millis(millis)),
            "{text}"
        );
    }
    let one_spent = [
        ("x-ratelimit-remaining-requests", "99"),
        ("x-ratelimit-reset-requests", "6m0s"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "2s"),
    ];
    assert_eq!(
        wait(&one_spent),
        Some(Duration::from_secs(2)),
        "only the spent budget counts"
    );
    assert_eq!(wait(&[("x-ratelimit-reset-tokens", "3 fortnights")]), None);
}

#[test]
fn messages_are_found_in_the_usual_places() {
    for (body, message) in [
        (r#"{"error":{"message":"m","code":"c"}}"#, "m"),
        (r#"{"error":"m"}"#, "m"),
        (r#"{"object":"error","message":"m","code":400}"#, "m"),
        (r#"{"detail":"m"}"#, "m"),
        (
            r#"{"detail":[{"loc":["body"],"msg":"m","input":"SECRET TEXT"},{"msg":"n"}]}"#,
            "m; n",
        ),
        (
            r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]"#,
            "m",
        ),
        ("<html>Bad gateway</html>", ""),
        ("", ""),
        ("[]", ""),
    ] {
        assert_eq!(Complaint::read(body.as_bytes()).message, message, "{body}");
    }
    let long = format!(r#"{{"error":"{}\n"}}"#, "é".repeat(600));
    assert_eq!(Complaint::read(long.as_bytes()).message.chars().count(), 500);
}

#[test]
fn each_status_has_one_meaning() {
    let kind = |status| match failure(status, &HeaderMap::new(), &Complaint::default()) {
        Failure::RateLimited { .. } => "limited",
        Failure::Unavailable { .. } => "unavailable",
        Failure::Rejected { .. } => "rejected",
        Failure::Misconfigured { .. } => "misconfigured",
        Failure::TimedOut { .. } | Failure::TooLong { .. } | Failure::BadAnswer { .. } | Failure::OutOfTime => "?",
    };
    for (statuses, meaning) in [
        (&[429][..], "limited"),
        (&[400, 413, 422], "rejected"),
        (
            &[401, 402, 403, 404, 405, 410, 418, 424, 301, 302, 307, 308],
            "misconfigured",
        ),
        (&[408, 409, 425, 500, 502, 503, 504, 520, 529], "unavailable"),
    ] {
        for status in statuses {
            assert_eq!(kind(*status), meaning, "{status}");
        }
    }
}

#[test]
fn keys_and_texts_are_taken_out_of_messages() {
    let input = "Grandmother's recipe for plum cake, handed down";
    assert_eq!(
        redact("bad key sk-123 given", Some("sk-123"), &[]),
        "bad key [key] given"
    );
    assert_eq!(
        redact(&format!("too long: '{input}' has 9 tokens"), None, &["other", input]),
        "too long: '[input]"
    );
    assert_eq!(
        redact("too long: 'Grandmother's recipe for…'", None, &[input]),
        "too long: '[input]"
    );
    assert_eq!(
        redact("the input is too long", None, &["the", ""]),
        "the input is too long"
    );
    assert_eq!(
        redact(
            "input \"Ann Smith\" is no input, nor is ‘Bob’; the model is 'm'",
            None,
            &["Ann Smith", " Bob ", "is"]
        ),
        "input \"[input]\" is no input, nor is ‘[input]’; the model is 'm'"
    );
}

#[test]
fn too_long_is_understood_in_many_words_and_no_budget_is_taken_for_it() {
    let is_too_long = |message: &str| {
        let complaint = Complaint {
            message: message.to_owned(),
            codes: Vec::new(),
        };
        complaint.is_too_long()
    };
    for message in [
        "This model's maximum context length is 8192 tokens, however you requested 9000 tokens",
        "Invalid 'input[0]': maximum input length is 8192 tokens.",
        "the input length exceeds the context length",
        "The input token count exceeds the maximum number of tokens allowed",
        "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
        "input (535 tokens) is too large to process",
        "Input length 548 exceeds maximum allowed token size 512",
        "The input (600 tokens) is longer than the model's context length (512 tokens).",
        "input is larger than the max context size. skipping",
        "decoding exceeds the available context size. try increasing the context size.",
        "Too many tokens in the input",
    ] {
        assert!(is_too_long(message), "{message}");
    }
    for message in [
        "",
        "the input was flagged by a filter",
        "You exceeded your current quota of tokens",
        "Too many tokens per minute",
        "Too many tokens, please wait before trying again.",
        "encoding_format is not supported",
    ] {
        assert!(!is_too_long(message), "{message}");
    }
}
