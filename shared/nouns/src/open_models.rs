//! Owns what the cards of open models say, whoever serves them. Refuses to know by which names.
//!
//! Each was looked up in the model's own card on Hugging Face, or where it says so in its maker's documentation;
//! `docs/PROVIDERS.md` has the table.

use crate::model::Model;

const BGE_QUERY: &str = "Represent this sentence for searching relevant passages: ";

/// nomic-ai/nomic-embed-text-v1.5: a prefix is a must. Trained at 2,048 tokens; 8,192 need a setting of the server's.
pub(crate) const NOMIC: Model = Model {
    shortens: true,
    document_prefix: "search_document: ",
    query_prefix: "search_query: ",
    ..Model::plain("", 768, 2048)
};

/// nomic-ai/nomic-embed-text-v2-moe: the same prefixes, 512 tokens.
pub(crate) const NOMIC_2: Model = Model { window: 512, ..NOMIC };

/// intfloat/e5-…, intfloat/multilingual-e5-…: the width differs.
pub(crate) const fn e5(dimensions: u16) -> Model {
    Model {
        document_prefix: "passage: ",
        query_prefix: "query: ",
        ..Model::plain("", dimensions, 512)
    }
}

/// BAAI/bge-…-en-v1.5: queries alone.
pub(crate) const fn bge(dimensions: u16) -> Model {
    Model {
        query_prefix: BGE_QUERY,
        ..Model::plain("", dimensions, 512)
    }
}

/// BAAI/bge-m3: no prefix.
pub(crate) const BGE_M3: Model = Model::plain("", 1024, 8192);

/// mixedbread.ai/docs/embeddings/mxbai-embed-large-v1: queries alone.
pub(crate) const MXBAI_LARGE: Model = Model {
    shortens: true,
    query_prefix: BGE_QUERY,
    ..Model::plain("", 1024, 512)
};

/// Snowflake/snowflake-arctic-embed-…, the first versions and 1.5: queries alone.
pub(crate) const fn arctic(dimensions: u16) -> Model {
    Model {
        query_prefix: BGE_QUERY,
        ..Model::plain("", dimensions, 512)
    }
}

/// Snowflake/snowflake-arctic-embed-…-v2.0: queries alone, another prefix.
pub(crate) const fn arctic_2(dimensions: u16) -> Model {
    Model {
        shortens: true,
        query_prefix: "query: ",
        ..Model::plain("", dimensions, 8192)
    }
}

/// google/embeddinggemma-300m.
pub(crate) const EMBEDDING_GEMMA: Model = Model {
    shortens: true,
    document_prefix: "title: none | text: ",
    query_prefix: "task: search result | query: ",
    ..Model::plain("", 768, 2048)
};

/// Qwen/Qwen3-Embedding-…: queries alone, with the card's own instruction for search.
pub(crate) const fn qwen3(dimensions: u16) -> Model {
    Model {
        shortens: true,
        query_prefix: "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        ..Model::plain("", dimensions, 32_768)
    }
}

/// sentence-transformers/all-MiniLM-L6-v2: no prefix; reads 256 tokens.
pub(crate) const MINILM: Model = Model::plain("", 384, 256);
