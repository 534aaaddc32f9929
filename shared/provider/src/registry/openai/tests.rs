use super::*;
use crate::wire::Wire;
use cronvec_nouns::space::ProviderKind;

fn spec(model: &str, dimensions: u16) -> SpaceSpec {
    SpaceSpec {
        provider: ProviderKind::OpenAi,
        model: model.to_owned(),
        dimensions,
        chunk_tokens: 512,
        chunk_overlap: 0,
        document_prefix: String::new(),
        query_prefix: String::new(),
    }
}

fn parse(body: &str, expected: usize) -> Result<Parsed, Failure> {
    OpenAi.parse(&spec("text-embedding-3-small", 2), body.as_bytes(), expected)
}

fn bad(body: &str, expected: usize) -> String {
    match parse(body, expected) {
        Err(Failure::BadAnswer { message }) => message,
        other => panic!("{other:?}"),
    }
}

fn sent(model: &str, dimensions: u16) -> serde_json::Value {
    let call = OpenAi.request(
        &spec(model, dimensions),
        Purpose::Document,
        &["a \"quoted\" text", "näive\n"],
        false,
    );
    assert_eq!(call.path, "embeddings");
    serde_json::from_slice(&call.body).unwrap()
}

#[test]
fn a_request_asks_for_base64_and_carries_the_texts() {
    let body = sent("text-embedding-3-small", 1536);
    assert_eq!(
        body,
        serde_json::json!({"model": "text-embedding-3-small", "input": ["a \"quoted\" text", "näive\n"],
            "encoding_format": "base64", "dimensions": 1536})
    );
}

#[test]
fn dimensions_go_only_to_models_that_take_them() {
    for (model, width, sent_too) in [
        ("text-embedding-3-large", 256, true),
        ("openai/text-embedding-3-small", 1536, true),
        ("text-embedding-ada-002", 1536, false),
        ("BAAI/bge-m3", 1024, false),
        ("Qwen/Qwen3-Embedding-0.6B", 1024, false),
        ("Qwen/Qwen3-Embedding-0.6B", 512, true),
        ("unheard-of", 77, false),
    ] {
        assert_eq!(
            sent(model, width).get("dimensions").is_some(),
            sent_too,
            "{model} {width}"
        );
    }
}

#[test]
fn base64_and_floats_mean_the_same_and_tokens_are_read() {
    // 1.0 and -2.5 as little-endian `f32`.
    let base64 = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAIMA="}],
        "model":"m","usage":{"prompt_tokens":5,"total_tokens":6}}"#;
    let unpadded = base64.replace("MA=", "MA");
    let floats = base64.replace("\"AACAPwAAIMA=\"", "[1, -2.5]");
    for body in [base64, &unpadded, &floats] {
        assert_eq!(
            parse(body, 1).unwrap(),
            Parsed {
                vectors: vec![vec![1.0, -2.5]],
                tokens: Some(5)
            }
        );
    }
    let no_usage = r#"{"data":[{"embedding":[1e0,2]}],"usage":null}"#;
    assert_eq!(
        parse(no_usage, 1).unwrap(),
        Parsed {
            vectors: vec![vec![1.0, 2.0]],
            tokens: None
        }
    );
}

#[test]
fn escaped_slashes_in_base64_are_slashes() {
    let plain = r#"{"data":[{"embedding":"////fwAAgD8="}]}"#;
    let escaped = plain.replace('/', "\\/");
    assert!(parse(plain, 1).unwrap().vectors[0][0].is_nan());
    assert_eq!(parse(&escaped, 1).unwrap().vectors[0][1], 1.0);
}

#[test]
fn vectors_are_ordered_by_index_not_by_arrival() {
    let shuffled =
        r#"{"data":[{"index":2,"embedding":[3,0]},{"index":0,"embedding":[1,0]},{"index":1,"embedding":[2,0]}]}"#;
    assert_eq!(
        parse(shuffled, 3).unwrap().vectors,
        [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    );
    let unnumbered = r#"{"data":[{"embedding":[1,0]},{"embedding":[2,0]}]}"#;
    assert_eq!(parse(unnumbered, 2).unwrap().vectors, [[1.0, 0.0], [2.0, 0.0]]);
}

#[test]
fn odd_numbers_put_vectors_in_their_order_all_the_same() {
    for data in [
        // Without the 0, as protocol buffers are written as JSON.
        r#"{"index":1,"embedding":[2,0]},{"embedding":[1,0]}"#,
        r#"{"index":"1","embedding":[2,0]},{"index":"0","embedding":[1,0]}"#,
        // Counted from 1.
        r#"{"index":2,"embedding":[2,0]},{"index":1,"embedding":[1,0]}"#,
        // Numbered by nothing.
        r#"{"index":null,"embedding":[1,0]},{"index":null,"embedding":[2,0]}"#,
    ] {
        let parsed = parse(&format!("{{\"data\":[{data}]}}"), 2);
        assert_eq!(parsed.unwrap().vectors, [[1.0, 0.0], [2.0, 0.0]], "{data}");
    }
}

#[test]
fn a_refusal_of_what_cannot_be_sent_says_what_works() {
    let said = |body: &str| {
        OpenAi
            .reject(400, &HeaderMap::new(), body.as_bytes())
            .message()
            .to_owned()
    };
    let asymmetric = r#"{"detail":"'input_type' parameter is required for asymmetric models"}"#;
    assert!(said(asymmetric).contains("gateway"), "{}", said(asymmetric));
    let matryoshka = r#"{"error":{"message":"Model does not support matryoshka representation"}}"#;
    assert!(
        said(matryoshka).contains("EMBEDDING_DIMENSIONS"),
        "{}",
        said(matryoshka)
    );
    assert_eq!(said(r#"{"error":{"message":"no"}}"#), "HTTP 400: no");
    assert!(OpenAi.about_width(&spec("unheard-of", 2)).contains("names are known"));
    assert_eq!(OpenAi.about_width(&spec("text-embedding-3-small", 2)), "");
}

#[test]
fn an_answer_that_breaks_the_contract_is_bad_and_says_how() {
    let two = r#"{"data":[{"index":0,"embedding":[1,0]},{"index":1,"embedding":[2,0]}]}"#;
    assert_eq!(bad(two, 3), "2 vectors for 3 inputs");
    assert_eq!(bad(two, 1), "2 vectors for 1 inputs");
    assert!(bad(&two.replace(":1,", ":0,"), 2).contains("same index"));
    assert!(bad(&two.replace(":1,", ":7,"), 2).contains("index"));
    assert!(bad(&two.replace("\"index\":1,", ""), 2).contains("index"));
    assert_eq!(bad(&two[..40], 2), "the body ends in the middle");
    assert!(bad("<!doctype html><title>Sign in</title>", 1).starts_with("no JSON"));
    assert_eq!(bad("{}", 1), "no `data`");
    for embedding in ["\"!!!!\"", "\"AACA\"", "{}", "17", "[\"x\"]", "\"\\u00e9\""] {
        bad(&format!(r#"{{"data":[{{"index":0,"embedding":{embedding}}}]}}"#), 1);
    }
}

#[test]
fn null_in_a_vector_is_not_a_number() {
    assert!(parse(r#"{"data":[{"embedding":[null,1]}]}"#, 1).unwrap().vectors[0][0].is_nan());
}

#[test]
fn an_error_with_status_200_means_what_its_code_says() {
    let body = r#"{"error":{"message":"slow down","code":429}}"#;
    assert!(matches!(parse(body, 1), Err(Failure::RateLimited { .. })));
    let body = r#"{"error":{"message":"No endpoints found","code":404}}"#;
    assert!(matches!(parse(body, 1), Err(Failure::Misconfigured { .. })));
    assert_eq!(
        bad(r#"{"error":{"message":"odd"}}"#, 1),
        "an error with status 200: odd"
    );
}

#[test]
fn what_only_a_person_can_mend_is_misconfigured_whatever_its_status() {
    let quota = br#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
    let failure = OpenAi.reject(429, &HeaderMap::new(), quota);
    assert_eq!(
        failure,
        Failure::Misconfigured {
            message: "HTTP 429: You exceeded your current quota".to_owned()
        }
    );
    let model = br#"{"error":{"message":"no such model","code":"model_not_found"}}"#;
    assert!(matches!(
        OpenAi.reject(400, &HeaderMap::new(), model),
        Failure::Misconfigured { .. }
    ));
    let limit = br#"{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}"#;
    assert!(matches!(
        OpenAi.reject(429, &HeaderMap::new(), limit),
        Failure::RateLimited { retry_after: None, .. }
    ));
}

#[test]
fn limits_are_the_providers_and_the_window_the_models() {
    let openai = OpenAi.limits(&spec("text-embedding-3-small", 1536));
    assert_eq!((openai.inputs, openai.tokens, openai.window), (2_048, 300_000, 8_192));
    let other = SpaceSpec {
        chunk_tokens: 2_000,
        ..spec("nomic-embed-text", 768)
    };
    assert_eq!(OpenAi.limits(&other).window, 2_000);
    assert_eq!(OpenAi.limits(&spec("nomic-embed-text", 768)).window, 512);
    assert_eq!(OpenAi.estimate_tokens("four"), 2);
    assert_eq!(OpenAi.estimate_tokens("漢字"), 2);
}
