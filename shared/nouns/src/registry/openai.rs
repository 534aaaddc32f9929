//! Owns what is known of OpenAI and the servers of its shape: settings, key, models. Refuses to know how they are asked.

use std::time::Duration;

use crate::definition::{Definition, Key, NeededAt, Server};
use crate::model::{Catalogue, Model};
use crate::open_models::{
    BGE_M3, EMBEDDING_GEMMA, MINILM, MXBAI_LARGE, NOMIC, NOMIC_2, arctic, arctic_2, bge, e5, qwen3,
};

pub(super) static PROVIDER: Definition = Definition {
    name: "openai",
    server: Some(Server {
        url_variable: "OPENAI_BASE_URL",
        default_url: "https://api.openai.com/v1",
        key: Some(Key {
            variable: "OPENAI_API_KEY",
            arn_variable: "OPENAI_API_KEY_ARN",
            needed: NeededAt::Host("api.openai.com"),
            missing: "is not set; the provider openai needs it, unless OPENAI_BASE_URL is a server without keys",
            header: "authorization",
            prefix: "Bearer ",
        }),
    }),
    models: MODELS,
    is_own: false,
    request_timeout: Duration::from_secs(30),
};

/// OpenAI's own from its embedding guide, the others by their names on Hugging Face.
const MODELS: Catalogue = Catalogue {
    default: Model {
        shortens: true,
        price: Some(0.02),
        ..Model::plain("text-embedding-3-small", 1536, 8191)
    },
    others: &[
        Model {
            shortens: true,
            price: Some(0.13),
            ..Model::plain("text-embedding-3-large", 3072, 8191)
        },
        Model {
            price: Some(0.10),
            ..Model::plain("text-embedding-ada-002", 1536, 8191)
        },
        // LM Studio's name, and the one that other servers use.
        NOMIC.named("text-embedding-nomic-embed-text-v1.5*"),
        NOMIC.named("nomic-embed-text-v1.5*"),
        NOMIC_2.named("nomic-embed-text-v2-moe*"),
        MXBAI_LARGE.named("mxbai-embed-large-v1*"),
        bge(384).named("bge-small-en-v1.5*"),
        bge(768).named("bge-base-en-v1.5*"),
        bge(1024).named("bge-large-en-v1.5*"),
        BGE_M3.named("bge-m3*"),
        arctic_2(1024).named("snowflake-arctic-embed-l-v2.0*"),
        arctic_2(768).named("snowflake-arctic-embed-m-v2.0*"),
        arctic(384).named("snowflake-arctic-embed-xs"),
        arctic(384).named("snowflake-arctic-embed-s"),
        arctic(768).named("snowflake-arctic-embed-m"),
        Model {
            shortens: true,
            ..arctic(768).named("snowflake-arctic-embed-m-v1.5")
        },
        arctic(1024).named("snowflake-arctic-embed-l"),
        EMBEDDING_GEMMA.named("embeddinggemma-300m*"),
        qwen3(1024).named("qwen3-embedding-0.6b*"),
        qwen3(2560).named("qwen3-embedding-4b*"),
        qwen3(4096).named("qwen3-embedding-8b*"),
        MINILM.named("all-minilm-l6-v2*"),
        e5(384).named("multilingual-e5-small"),
        e5(768).named("multilingual-e5-base"),
        e5(1024).named("multilingual-e5-large"),
        e5(384).named("e5-small-v2"),
        e5(768).named("e5-base-v2"),
        e5(1024).named("e5-large-v2"),
    ],
    takes_any: true,
};
