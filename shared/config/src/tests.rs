//! Owns the tests of the settings as a whole. Refuses to repeat those of a single rule, which stand beside it.

use std::time::Duration;

use super::*;
use cronvec_nouns::space::ProviderKind;

const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:cron-AbCdEf";

fn read(variables: &[(&str, &str)]) -> Result<Settings, Problems> {
    let find = |name: &str| {
        variables
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    Settings::from_lookup(&find)
}

/// The one problem there is.
fn problem(variables: &[(&str, &str)]) -> Problem {
    let mut problems = read(variables).unwrap_err().0;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn an_empty_environment_is_development_with_the_defaults_of_the_contract() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.app_env, AppEnv::Development);
    assert_eq!(settings.database, None);
    let space = &settings.embedding.new_space;
    assert_eq!(space.provider, ProviderKind::Static);
    assert_eq!((space.model.as_str(), space.dimensions), ("minilm-static-256", 256));
    assert_eq!((space.chunk_tokens, space.chunk_overlap), (512, 0));
    assert_eq!(
        (settings.embedding.batch_size, settings.embedding.concurrent_requests),
        (25, 4)
    );
    assert_eq!(settings.embedding.max_attempts, 3);
    assert_eq!(settings.embedding.backoff_base, Duration::from_secs(10));
    assert_eq!(settings.queue.records_per_slice, 250);
    assert_eq!((settings.queue.vectorize_jobs, settings.queue.ingest_jobs), (2, 3));
    assert_eq!(settings.queue.worker_timeout, Duration::from_secs(60));
    assert_eq!(settings.retention.interval, Duration::from_secs(24 * 3600));
    assert_eq!(settings.max_content_bytes, 10_000_000);
}

#[test]
fn it_is_production_on_lambda_and_where_the_caller_says_so_unless_app_env_says_otherwise() {
    let lambda = [
        ("AWS_LAMBDA_FUNCTION_NAME", "vectorization"),
        ("EMBEDDING_PROVIDER", "static"),
    ];
    assert_eq!(read(&lambda).unwrap().app_env, AppEnv::Production);
    let told = [lambda[0], ("APP_ENV", "development")];
    assert_eq!(read(&told).unwrap().app_env, AppEnv::Development);
    let provider = |name: &str| (name == "EMBEDDING_PROVIDER").then(|| "static".to_owned());
    let serve = Settings::from_lookup_as(&provider, Some(AppEnv::Production)).unwrap();
    assert_eq!(serve.app_env, AppEnv::Production);
}

#[test]
fn production_needs_a_provider_to_be_named() {
    let problem = problem(&[("APP_ENV", "production")]);
    assert_eq!(problem.variable, "EMBEDDING_PROVIDER");
    assert!(problem.message.contains("static or openai"), "{problem}");
}

#[test]
fn all_problems_are_reported_together_a_line_each() {
    let problems = read(&[
        ("APP_ENV", "prod"),
        ("EMBEDDING_BATCH_SIZE", "0"),
        ("EMBEDDING_QUEUE_ENABLED", "perhaps"),
        ("OPENAI_BASE_URL", "http://api.example.com"),
        ("CRON_SECRET_ARN", "cron"),
        ("MAX_CONTENT_BYTES", "10 GB"),
        ("EMBEDDING_DIMENSIONS", "16001"),
    ])
    .unwrap_err();
    let names: Vec<_> = problems.0.iter().map(|problem| problem.variable.as_str()).collect();
    let all = [
        "APP_ENV",
        "CRON_SECRET_ARN",
        "EMBEDDING_DIMENSIONS",
        "OPENAI_BASE_URL",
        "EMBEDDING_QUEUE_ENABLED",
        "EMBEDDING_BATCH_SIZE",
        "MAX_CONTENT_BYTES",
    ];
    assert_eq!(names, all);
    assert_eq!(problems.to_string().lines().count(), all.len());
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let settings = read(&[("EMBEDDING_BATCH_SIZE", ""), ("CRON_SECRET", ""), ("DATABASE_URL", " ")]).unwrap();
    assert_eq!(settings.embedding.batch_size, 25);
    assert_eq!((settings.cron_secret, settings.database), (None, None));
}

#[test]
fn a_secret_is_given_as_itself_or_by_its_arn_but_not_both() {
    assert_eq!(
        read(&[("CRON_SECRET_ARN", ARN)]).unwrap().cron_secret,
        Some(SecretSource::Arn(ARN.into()))
    );
    assert_eq!(
        read(&[("DATABASE_SECRET_ARN", ARN)]).unwrap().database,
        Some(SecretSource::Arn(ARN.into()))
    );
    assert_eq!(
        read(&[("DATABASE_ROOT_CERT_ARN", ARN)]).unwrap().database_root_cert,
        Some(SecretSource::Arn(ARN.into()))
    );
    assert_eq!(
        read(&[("CRON_SECRET", "s")]).unwrap().cron_secret,
        Some(SecretSource::Value("s".into()))
    );
    let both = problem(&[("CRON_SECRET", "hunter2"), ("CRON_SECRET_ARN", ARN)]);
    assert!(
        both.message.contains("CRON_SECRET are both set") && !both.to_string().contains("hunter2"),
        "{both}"
    );
}

#[test]
fn a_missing_database_is_a_problem_only_for_who_needs_it() {
    let problem = read(&[]).unwrap().require_database().unwrap_err();
    assert!(
        problem
            .to_string()
            .starts_with("DATABASE_URL is not set; set it to postgresql://"),
        "{problem}"
    );
}

#[test]
fn each_provider_has_its_own_model_and_width() {
    let key = [("EMBEDDING_PROVIDER", "openai"), ("OPENAI_API_KEY", "sk")];
    let space = read(&key).unwrap().embedding.new_space;
    assert_eq!(
        (space.model.as_str(), space.dimensions, space.chunk_tokens),
        ("text-embedding-3-small", 1536, 512)
    );
    let large = read(&[key[0], key[1], ("EMBEDDING_MODEL", "text-embedding-3-large")])
        .unwrap()
        .embedding
        .new_space;
    assert_eq!(large.dimensions, 3072);
    let unknown = read(&[key[0], key[1], ("EMBEDDING_MODEL", "our-own")])
        .unwrap()
        .embedding
        .new_space;
    assert_eq!((unknown.model.as_str(), unknown.dimensions), ("our-own", 1536));
}

#[test]
fn ollama_needs_nothing_and_gemini_a_key() {
    let ollama = read(&[("EMBEDDING_PROVIDER", "ollama")]).unwrap().embedding;
    assert_eq!(
        ollama.providers.get(ProviderKind::Ollama).unwrap().base_url,
        "http://localhost:11434"
    );
    let space = ollama.new_space;
    assert_eq!(
        (space.model.as_str(), space.dimensions, space.document_prefix.as_str()),
        ("nomic-embed-text", 768, "search_document: ")
    );
    assert_eq!(problem(&[("EMBEDDING_PROVIDER", "gemini")]).variable, "GEMINI_API_KEY");
    let gemini = read(&[("EMBEDDING_PROVIDER", "gemini"), ("GEMINI_API_KEY", "k")]).unwrap();
    let space = gemini.embedding.new_space;
    assert_eq!(
        (space.model.as_str(), space.dimensions, space.document_prefix.as_str()),
        ("gemini-embedding-001", 3072, "")
    );
}

#[test]
fn each_model_has_the_width_and_the_prefixes_of_its_card() {
    const PASSAGES: &str = "Represent this sentence for searching relevant passages: ";
    const INSTRUCT: &str =
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:";
    const GEMMA: (&str, &str) = ("title: none | text: ", "task: search result | query: ");
    for (provider, model, width, document, query) in [
        (
            "ollama",
            "nomic-embed-text:latest",
            768,
            "search_document: ",
            "search_query: ",
        ),
        (
            "ollama",
            "nomic-embed-text:v1.5",
            768,
            "search_document: ",
            "search_query: ",
        ),
        ("ollama", "mxbai-embed-large", 1024, "", PASSAGES),
        ("ollama", "bge-m3:567m", 1024, "", ""),
        ("ollama", "snowflake-arctic-embed:22m", 384, "", PASSAGES),
        ("ollama", "snowflake-arctic-embed", 1024, "", PASSAGES),
        ("ollama", "snowflake-arctic-embed2", 1024, "", "query: "),
        ("ollama", "embeddinggemma", 768, GEMMA.0, GEMMA.1),
        ("ollama", "qwen3-embedding:0.6b", 1024, "", INSTRUCT),
        ("ollama", "qwen3-embedding", 4096, "", INSTRUCT),
        ("ollama", "all-minilm:22m", 384, "", ""),
        ("openai", "BAAI/bge-base-en-v1.5", 768, "", PASSAGES),
        ("openai", "intfloat/e5-large-v2", 1024, "passage: ", "query: "),
        ("openai", "Snowflake/snowflake-arctic-embed-l-v2.0", 1024, "", "query: "),
        ("openai", "Snowflake/snowflake-arctic-embed-m-v1.5", 768, "", PASSAGES),
        ("openai", "Qwen/Qwen3-Embedding-8B", 4096, "", INSTRUCT),
        ("openai", "google/embeddinggemma-300m", 768, GEMMA.0, GEMMA.1),
        ("gemini", "models/gemini-embedding-001", 3072, "", ""),
        ("gemini", "gemini-embedding-2-preview", 3072, GEMMA.0, GEMMA.1),
    ] {
        let space = read(&[
            ("EMBEDDING_PROVIDER", provider),
            ("EMBEDDING_MODEL", model),
            ("OPENAI_API_KEY", "sk"),
            ("GEMINI_API_KEY", "k"),
        ])
        .unwrap()
        .embedding
        .new_space;
        assert_eq!(
            (
                space.dimensions,
                space.document_prefix.as_str(),
                space.query_prefix.as_str()
            ),
            (width, document, query),
            "{model}"
        );
    }
}

#[test]
fn a_models_own_prefixes_hold_until_others_are_set() {
    let base = [
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", "http://localhost:1234/v1/"),
        ("EMBEDDING_MODEL", "intfloat/multilingual-e5-base"),
    ];
    let own = read(&base).unwrap().embedding.new_space;
    assert_eq!(
        (own.document_prefix.as_str(), own.query_prefix.as_str()),
        ("passage: ", "query: ")
    );
    let set = read(&[base[0], base[1], base[2], ("EMBEDDING_QUERY_PREFIX", "q: ")])
        .unwrap()
        .embedding
        .new_space;
    assert_eq!(
        (set.document_prefix.as_str(), set.query_prefix.as_str()),
        ("passage: ", "q: ")
    );
}

#[test]
fn openai_itself_needs_a_key_and_a_server_on_loopback_does_not() {
    assert_eq!(problem(&[("EMBEDDING_PROVIDER", "openai")]).variable, "OPENAI_API_KEY");
    let local = read(&[
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1/"),
    ])
    .unwrap();
    assert_eq!(
        local.embedding.providers.get(ProviderKind::OpenAi).unwrap().base_url,
        "http://127.0.0.1:8000/v1"
    );
}

#[test]
fn a_width_that_the_model_cannot_have_is_a_problem() {
    assert_eq!(
        problem(&[("EMBEDDING_DIMENSIONS", "128")]).variable,
        "EMBEDDING_DIMENSIONS"
    );
    let openai = [("EMBEDDING_PROVIDER", "openai"), ("OPENAI_API_KEY", "sk")];
    assert_eq!(
        read(&[openai[0], openai[1], ("EMBEDDING_DIMENSIONS", "512")])
            .unwrap()
            .embedding
            .new_space
            .dimensions,
        512
    );
    assert_eq!(
        problem(&[openai[0], openai[1], ("EMBEDDING_DIMENSIONS", "2000")]).variable,
        "EMBEDDING_DIMENSIONS"
    );
}

#[test]
fn chunks_fit_the_window_and_overlap_by_less_than_themselves() {
    assert_eq!(
        problem(&[("EMBEDDING_CHUNK_TOKENS", "513")]).variable,
        "EMBEDDING_CHUNK_TOKENS"
    );
    let overlap = problem(&[("EMBEDDING_CHUNK_TOKENS", "64"), ("EMBEDDING_CHUNK_OVERLAP", "64")]);
    assert_eq!(overlap.variable, "EMBEDDING_CHUNK_OVERLAP");
}

#[test]
fn the_static_provider_takes_no_model_but_its_own() {
    let problem = problem(&[("EMBEDDING_MODEL", "text-embedding-3-small")]);
    assert!(problem.message.contains("minilm-static-256"), "{problem}");
}

#[test]
fn bytes_are_plain_or_have_a_decimal_unit() {
    for (text, bytes) in [
        ("2048", 2048),
        ("64KB", 64_000),
        ("10 MB", 10_000_000),
        ("1mb", 1_000_000),
    ] {
        assert_eq!(
            read(&[("MAX_CONTENT_BYTES", text)]).unwrap().max_content_bytes,
            bytes,
            "{text}"
        );
    }
    assert_eq!(problem(&[("MAX_CONTENT_BYTES", "-1")]).variable, "MAX_CONTENT_BYTES");
}

#[test]
fn calls_are_limited_unless_the_limit_is_0() {
    let limit = |text| read(&[("API_RATE_LIMIT", text)]).unwrap().api_rate_limit;
    assert_eq!((limit(""), limit("0"), limit("600")), (6000, 0, 600));
    for text in ["-1", "many", "1000001"] {
        assert_eq!(
            problem(&[("API_RATE_LIMIT", text)]).variable,
            "API_RATE_LIMIT",
            "{text}"
        );
    }
}

#[test]
fn a_price_that_is_set_comes_before_the_listed_one() {
    let prices = read(&[("EMBEDDING_PRICES", "own = 3.5, text-embedding-3-small=0")])
        .unwrap()
        .embedding
        .prices;
    assert_eq!(
        (prices.of("own"), prices.of("text-embedding-3-small")),
        (Some(3.5), Some(0.0))
    );
    assert_eq!(
        (prices.of("text-embedding-3-large"), prices.of("nobody's")),
        (Some(0.13), None)
    );
    for text in ["own", "own=", "=1", "own=-1", "own=nan", "own=1,x"] {
        assert_eq!(
            problem(&[("EMBEDDING_PRICES", text)]).variable,
            "EMBEDDING_PRICES",
            "{text}"
        );
    }
}

#[test]
fn describing_the_settings_shows_every_variable_and_no_secret() {
    let settings = read(&[
        ("DATABASE_URL", "postgresql://app:hunter2@db.example.com/shop"),
        ("CRON_SECRET", "hunter2"),
        ("CRON_SECRET_PREVIOUS_ARN", ARN),
        ("OPENAI_API_KEY", "hunter2"),
        ("SESSION_SECRET", "hunter2"),
    ])
    .unwrap();
    let rows = settings.describe();
    let text = format!("{rows:?} {settings:?}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(rows.contains(&("CRON_SECRET_PREVIOUS_ARN", ARN.to_owned())));
    assert!(
        rows.iter()
            .any(|(name, value)| *name == "DATABASE_URL" && value.contains("db.example.com"))
    );
    assert!(rows.iter().any(|(name, _)| *name == "METRICS_RETENTION_DAYS"));
}

/// The table is also what the template of the functions is compared with.
#[test]
fn every_variable_that_is_read_stands_in_the_settings_table_and_no_other() {
    let asked = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let lookup = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    Settings::from_lookup(&lookup).unwrap();
    let mut asked = asked.into_inner();
    // Lambda's own.
    for own in ["AWS_LAMBDA_FUNCTION_NAME", "AWS_REGION"] {
        assert!(asked.remove(own));
    }
    // Read before the settings are, see `telemetry`.
    asked.insert("RUST_LOG".to_owned());
    let table = include_str!("../../../docs/SETTINGS.md");
    let cells = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let told: std::collections::BTreeSet<String> = cells
        .flat_map(|cell| cell.split('`').step_by(2))
        .map(str::to_owned)
        .collect();
    // A secret's row stands for its `_ARN` as well.
    let of_secrets = asked
        .iter()
        .filter(|name| name.strip_suffix("_ARN").is_some_and(|name| told.contains(name)));
    let of_secrets: Vec<String> = of_secrets.cloned().collect();
    for name in of_secrets {
        asked.remove(&name);
    }
    assert_eq!(asked, told);
}
