//! Owns what is known of Google's Gemini API: settings, key, models. Refuses to know how it is asked.

use std::time::Duration;

use crate::definition::{Definition, Key, NeededAt, Server};
use crate::model::{Catalogue, Model};

pub(super) static PROVIDER: Definition = Definition {
    name: "gemini",
    server: Some(Server {
        url_variable: "GEMINI_BASE_URL",
        default_url: "https://generativelanguage.googleapis.com",
        key: Some(Key {
            variable: "GEMINI_API_KEY",
            arn_variable: "GEMINI_API_KEY_ARN",
            needed: NeededAt::DefaultUrl,
            missing: "is not set; the provider gemini needs it",
            header: "x-goog-api-key",
            prefix: "",
        }),
    }),
    models: MODELS,
    is_own: false,
    request_timeout: Duration::from_secs(30),
};

/// From Google's embedding guide and the models' pages. `gemini-embedding-001` is told documents from queries by a field
/// of the request, `gemini-embedding-2` by the text.
const MODELS: Catalogue = Catalogue {
    default: Model {
        shortens: true,
        price: Some(0.15),
        ..Model::plain("gemini-embedding-001", 3072, 2048)
    },
    others: &[Model {
        shortens: true,
        document_prefix: "title: none | text: ",
        query_prefix: "task: search result | query: ",
        ..Model::plain("gemini-embedding-2*", 3072, 8192)
    }],
    takes_any: true,
};
