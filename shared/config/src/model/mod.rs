//! Owns what is known about models before any is asked: width, window, prefixes. Refuses to know their servers.

mod gemini;
mod ollama;
mod open_models;
mod openai;
mod static_model;

use cronvec_nouns::space::ProviderKind;

/// What a provider's models are like. Adding a provider: a file beside this one, and a line in [`Catalogue::of`].
pub(super) struct Catalogue {
    /// The model that is taken when none is named.
    pub(super) default: Model,
    /// The others that are known. A name ending in `*` stands for all that begin so.
    pub(super) others: &'static [Model],
    /// Whether a model that isn't listed may be named.
    pub(super) takes_any: bool,
}

/// A model as far as it is known.
#[derive(Clone, Copy)]
pub(super) struct Model {
    pub(super) name: &'static str,
    pub(super) dimensions: u16,
    /// Whether it yields vectors of fewer dimensions on request.
    pub(super) shortens: bool,
    /// Tokens that it reads of one input.
    pub(super) window: u32,
    pub(super) document_prefix: &'static str,
    pub(super) query_prefix: &'static str,
}

impl Model {
    /// A model that doesn't tell documents and queries apart.
    const fn plain(name: &'static str, dimensions: u16, window: u32) -> Self {
        Self {
            name,
            dimensions,
            shortens: false,
            window,
            document_prefix: "",
            query_prefix: "",
        }
    }
}

impl Catalogue {
    pub(super) fn of(provider: ProviderKind) -> &'static Self {
        match provider {
            ProviderKind::Static => &static_model::CATALOGUE,
            ProviderKind::OpenAi => &openai::CATALOGUE,
            ProviderKind::Ollama => &ollama::CATALOGUE,
            ProviderKind::Gemini => &gemini::CATALOGUE,
        }
    }

    /// What is known of a model; servers put an owner before its name and `:latest` behind it, and write it in any case.
    pub(super) fn find(&self, name: &str) -> Option<Model> {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let name = name.strip_suffix(":latest").unwrap_or(&name);
        std::iter::once(&self.default)
            .chain(self.others)
            .find(|model| match model.name.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == model.name,
            })
            .copied()
    }

    /// The names that may be chosen, where only some may.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = std::iter::once(&self.default)
            .chain(self.others)
            .map(|model| model.name)
            .collect();
        names.join(", ")
    }
}
