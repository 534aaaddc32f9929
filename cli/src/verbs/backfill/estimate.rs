//! What a backfill would do: records, tokens, time, money.

use anyhow::Result;
use serde::Serialize;
use shared::space::ProviderKind;
use shared::store::projects::Project;
use shared::store::sources::ColumnIndexes;

use crate::app::App;
use crate::indexes;
use crate::output::count;

/// Of a model whose tokens can't be counted here.
const BYTES_A_TOKEN: f64 = 4.0;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Estimate {
    pub project: String,
    /// Without vectors of their current text.
    pub records: i64,
    /// Of these, those that wait already.
    pub pending: i64,
    pub tokens: i64,
    pub model: String,
    /// At the last day's rate of the same model; null when it embedded nothing.
    pub seconds: Option<f64>,
    pub records_per_second: Option<f64>,
    /// US dollars; null when the model's price isn't known.
    pub cost: Option<f64>,
    /// For a million tokens.
    pub price: Option<f64>,
    /// Of an attached table with an embedding column.
    pub column_indexes: Option<ColumnIndexes>,
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "an estimate of counts"
)]
pub(super) async fn of(app: &App, project: &Project, lanes: i16) -> Result<Estimate> {
    let missing = app.store().missing(project.id).await?;
    let spec = app.live_space(project).await?;
    let provider = app.provider(&spec).await.ok();
    let sampled: usize = missing.sample.iter().map(String::len).sum();
    let tokens_a_byte = match (&provider, sampled) {
        (Some(provider), 1..) => {
            let tokens: usize = missing.sample.iter().map(|text| provider.count_tokens(text)).sum();
            tokens as f64 / sampled as f64
        }
        _ => 1.0 / BYTES_A_TOKEN,
    };
    let tokens = (missing.bytes as f64 * tokens_a_byte).ceil() as i64;
    let price = app.settings().embedding.prices.of(&spec.model);
    let price = match spec.provider {
        // These run on machines of one's own.
        ProviderKind::Static | ProviderKind::Ollama => price.or(Some(0.0)),
        ProviderKind::OpenAi | ProviderKind::Gemini => price,
    };
    let rate = app.store().measured_rate_of(project.id).await?;
    let rate = rate.map(|rate| rate * f64::from(lanes));
    Ok(Estimate {
        project: project.name.clone(),
        records: missing.records,
        pending: missing.pending,
        tokens,
        model: spec.model,
        seconds: rate.map(|rate| (missing.records as f64 / rate * 10.0).round() / 10.0),
        records_per_second: rate.map(|rate| (rate * 10.0).round() / 10.0),
        cost: price.map(|price| (tokens as f64 / 1e6 * price * 1e6).round() / 1e6),
        price,
        column_indexes: indexes::of_project(app, &project.name).await?,
    })
}

impl Estimate {
    pub fn in_words(&self) -> String {
        let time = match (self.seconds, self.records_per_second) {
            (Some(seconds), Some(rate)) => {
                format!("about {seconds:.0} s at {rate} records a second, as measured lately with this model")
            }
            _ => "unknown: this model embedded nothing in the last day".to_owned(),
        };
        let cost = match (self.cost, self.price) {
            (Some(cost), Some(price)) => format!("about ${cost:.4} at ${price} a million tokens"),
            _ => format!("unknown: set EMBEDDING_PRICES={}=DOLLARS_A_MILLION_TOKENS", self.model),
        };
        let mut text = format!(
            "project {}, model {}\n  records  {}, {} of them wait already\n  tokens   about {}\n  time     {time}\n  cost     {cost}",
            self.project,
            self.model,
            count(self.records),
            count(self.pending),
            count(self.tokens),
        );
        if self.records > 0
            && let Some(told) = self.column_indexes.as_ref().and_then(indexes::before_filling)
        {
            text.push('\n');
            text.push_str(&told);
        }
        text
    }
}
