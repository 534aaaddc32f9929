//! What texts cost: tokens by some of them, money by the model's price.

use cronvec_nouns::space::SpaceSpec;
use serde::Serialize;

use crate::app::App;

/// Of a model whose tokens can't be counted here.
const BYTES_A_TOKEN: f64 = 4.0;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cost {
    pub tokens: i64,
    /// US dollars; null when the model's price isn't known.
    pub cost: Option<f64>,
    /// For a million tokens.
    pub price: Option<f64>,
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "an estimate of counts"
)]
pub(crate) async fn of(app: &App, spec: &SpaceSpec, bytes: f64, sample: &[String]) -> Cost {
    let provider = app.provider(spec).await.ok();
    let sampled: usize = sample.iter().map(String::len).sum();
    let tokens_a_byte = match (&provider, sampled) {
        (Some(provider), 1..) => {
            let tokens: usize = sample.iter().map(|text| provider.count_tokens(text)).sum();
            tokens as f64 / sampled as f64
        }
        _ => 1.0 / BYTES_A_TOKEN,
    };
    let tokens = (bytes * tokens_a_byte).ceil() as i64;
    let price = price(app, spec);
    Cost {
        tokens,
        cost: price.map(|price| (tokens as f64 / 1e6 * price * 1e6).round() / 1e6),
        price,
    }
}

/// Dollars for a million tokens, where it is known.
pub(crate) fn price(app: &App, spec: &SpaceSpec) -> Option<f64> {
    let price = app.settings().embedding.prices.of(&spec.model);
    price.or(spec.provider.definition().is_own.then_some(0.0))
}

impl Cost {
    pub fn in_words(&self, model: &str) -> String {
        match (self.cost, self.price) {
            (Some(cost), Some(price)) => format!("about ${cost:.4} at ${price} a million tokens"),
            _ => format!("unknown: set EMBEDDING_PRICES={model}=DOLLARS_A_MILLION_TOKENS"),
        }
    }
}
