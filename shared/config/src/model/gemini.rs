//! Owns what is known of the Gemini API's models. Refuses to know how they are asked.

use super::{Catalogue, Model};

/// From Google's embedding guide and the models' pages. `gemini-embedding-001` is told documents from queries by a field
/// of the request, `gemini-embedding-2` by the text.
pub(super) static CATALOGUE: Catalogue = Catalogue {
    default: Model {
        shortens: true,
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
