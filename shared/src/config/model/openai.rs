//! Owns what is known of models that are served in OpenAI's shape. Refuses to know their servers.

use super::{Catalogue, Model};

const BGE_QUERY: &str = "Represent this sentence for searching relevant passages: ";

/// Widths, windows and prefixes as the models' own cards give them.
pub(super) static CATALOGUE: Catalogue = Catalogue {
    default: Model {
        shortens: true,
        ..Model::plain("text-embedding-3-small", 1536, 8191)
    },
    others: &[
        Model {
            shortens: true,
            ..Model::plain("text-embedding-3-large", 3072, 8191)
        },
        Model::plain("text-embedding-ada-002", 1536, 8191),
        // LM Studio's name, and the one that other servers use.
        Model {
            name: "text-embedding-nomic-embed-text-v1.5*",
            ..NOMIC
        },
        Model {
            name: "nomic-embed-text-v1.5*",
            ..NOMIC
        },
        Model {
            query_prefix: BGE_QUERY,
            ..Model::plain("mxbai-embed-large-v1*", 1024, 512)
        },
        Model {
            query_prefix: BGE_QUERY,
            ..Model::plain("bge-small-en-v1.5*", 384, 512)
        },
        Model {
            query_prefix: BGE_QUERY,
            ..Model::plain("bge-base-en-v1.5*", 768, 512)
        },
        Model {
            query_prefix: BGE_QUERY,
            ..Model::plain("bge-large-en-v1.5*", 1024, 512)
        },
        Model::plain("bge-m3*", 1024, 8192),
        Model {
            name: "multilingual-e5-small",
            dimensions: 384,
            ..E5
        },
        Model {
            name: "multilingual-e5-base",
            dimensions: 768,
            ..E5
        },
        Model {
            name: "multilingual-e5-large",
            dimensions: 1024,
            ..E5
        },
        Model {
            name: "e5-small-v2",
            dimensions: 384,
            ..E5
        },
        Model {
            name: "e5-base-v2",
            dimensions: 768,
            ..E5
        },
        Model {
            name: "e5-large-v2",
            dimensions: 1024,
            ..E5
        },
    ],
    takes_any: true,
};

const NOMIC: Model = Model {
    shortens: true,
    document_prefix: "search_document: ",
    query_prefix: "search_query: ",
    ..Model::plain("", 768, 2048)
};

const E5: Model = Model {
    document_prefix: "passage: ",
    query_prefix: "query: ",
    ..Model::plain("", 0, 512)
};
