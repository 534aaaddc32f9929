//! Owns what models cost, for estimates. Refuses to promise that it is still so.

use cronvec_nouns::space::ProviderKind;

use super::reader::Reader;

/// Prices by model; the settings' own come before those that the registry lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices(Vec<(String, f64)>);

impl Prices {
    /// `EMBEDDING_PRICES`: `model=dollars for a million tokens`, several parted by commas.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let text = reader.text("EMBEDDING_PRICES").unwrap_or_default();
        let mut prices = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let parsed = pair.split_once('=').and_then(|(model, price)| {
                let price: f64 = price.trim().parse().ok()?;
                (!model.trim().is_empty() && price.is_finite() && price >= 0.0)
                    .then(|| (model.trim().to_owned(), price))
            });
            match parsed {
                Some(price) => prices.push(price),
                None => reader.problem(
                    "EMBEDDING_PRICES",
                    format!("has '{pair}'; it is model=dollars for a million tokens, several parted by commas"),
                ),
            }
        }
        Self(prices)
    }

    /// Dollars for a million tokens; `None` where nobody knows.
    pub fn of(&self, model: &str) -> Option<f64> {
        let own = self.0.iter().find(|(name, _)| name == model);
        own.map(|(_, price)| *price).or_else(|| listed(model))
    }

    pub(super) fn describe(&self, rows: &mut Vec<(&'static str, String)>) {
        let pairs: Vec<String> = self.0.iter().map(|(model, price)| format!("{model}={price}")).collect();
        rows.push(("EMBEDDING_PRICES", pairs.join(",")));
    }
}

/// As a model's maker lists it, by whichever provider it is served.
fn listed(model: &str) -> Option<f64> {
    let mut known = ProviderKind::ALL
        .into_iter()
        .flat_map(|kind| kind.definition().models.all());
    known.find(|known| known.name == model).and_then(|known| known.price)
}
