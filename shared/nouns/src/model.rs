//! Owns what is known about models before any is asked: width, window, prefixes, price. Refuses to know their servers.

/// What a provider's models are like.
pub struct Catalogue {
    /// The model that is taken when none is named.
    pub default: Model,
    /// The others that are known. A name ending in `*` stands for all that begin so.
    pub others: &'static [Model],
    /// Whether a model that isn't listed may be named.
    pub takes_any: bool,
}

/// A model as far as it is known.
#[derive(Clone, Copy)]
pub struct Model {
    pub name: &'static str,
    pub dimensions: u16,
    /// Whether it yields vectors of fewer dimensions on request.
    pub shortens: bool,
    /// Tokens that it reads of one input.
    pub window: u32,
    pub document_prefix: &'static str,
    pub query_prefix: &'static str,
    /// US dollars for a million tokens, as its maker listed it in 2025. For estimates.
    pub price: Option<f64>,
}

impl Model {
    /// A model that doesn't tell documents and queries apart.
    pub(crate) const fn plain(name: &'static str, dimensions: u16, window: u32) -> Self {
        Self {
            name,
            dimensions,
            shortens: false,
            window,
            document_prefix: "",
            query_prefix: "",
            price: None,
        }
    }

    /// The same under a name of a server's.
    pub(crate) const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

impl Catalogue {
    /// The default model, then the others.
    pub fn all(&self) -> impl Iterator<Item = &Model> {
        std::iter::once(&self.default).chain(self.others)
    }

    /// What is known of a model; servers put an owner before its name and `:latest` behind it, and write it in any case.
    pub fn find(&self, name: &str) -> Option<Model> {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let name = name.strip_suffix(":latest").unwrap_or(&name);
        self.all()
            .find(|model| match model.name.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == model.name,
            })
            .copied()
    }

    /// The names that may be chosen, where only some may.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.all().map(|model| model.name).collect();
        names.join(", ")
    }
}
