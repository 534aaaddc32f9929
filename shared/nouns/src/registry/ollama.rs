//! Owns what is known of Ollama: settings, models by their names in its library. Refuses to know how it is asked.

use std::time::Duration;

use crate::definition::{Definition, Server};
use crate::model::{Catalogue, Model};
use crate::open_models::{BGE_M3, EMBEDDING_GEMMA, MINILM, MXBAI_LARGE, NOMIC, NOMIC_2, arctic, arctic_2, bge, qwen3};

pub(super) static PROVIDER: Definition = Definition {
    name: "ollama",
    server: Some(Server {
        url_variable: "OLLAMA_BASE_URL",
        default_url: "http://localhost:11434",
        key: None,
    }),
    models: MODELS,
    is_own: true,
    // A model that runs on the machine beside may be loading, or have no accelerator.
    request_timeout: Duration::from_secs(300),
};

/// A tag may follow a name: `*` stands for it. Where the tag is the size, each has its line.
const MODELS: Catalogue = Catalogue {
    default: NOMIC.named("nomic-embed-text"),
    others: &[
        NOMIC_2.named("nomic-embed-text-v2-moe*"),
        NOMIC.named("nomic-embed-text:*"),
        MXBAI_LARGE.named("mxbai-embed-large*"),
        BGE_M3.named("bge-m3*"),
        bge(1024).named("bge-large*"),
        arctic_2(1024).named("snowflake-arctic-embed2*"),
        arctic(384).named("snowflake-arctic-embed:22m*"),
        arctic(384).named("snowflake-arctic-embed:33m*"),
        arctic(768).named("snowflake-arctic-embed:110m*"),
        Model {
            window: 2048,
            ..arctic(768).named("snowflake-arctic-embed:137m*")
        },
        arctic(1024).named("snowflake-arctic-embed*"),
        EMBEDDING_GEMMA.named("embeddinggemma*"),
        qwen3(1024).named("qwen3-embedding:0.6b*"),
        qwen3(2560).named("qwen3-embedding:4b*"),
        qwen3(4096).named("qwen3-embedding*"),
        MINILM.named("all-minilm*"),
    ],
    takes_any: true,
};
