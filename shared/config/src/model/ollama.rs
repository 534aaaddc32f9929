//! Owns what is known of models by their names in Ollama's library. Refuses to know a server.

use super::open_models::{BGE_M3, EMBEDDING_GEMMA, MINILM, MXBAI_LARGE, NOMIC, NOMIC_2, arctic, arctic_2, bge, qwen3};
use super::{Catalogue, Model};

/// A tag may follow a name: `*` stands for it. Where the tag is the size, each has its line.
pub(super) static CATALOGUE: Catalogue = Catalogue {
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
