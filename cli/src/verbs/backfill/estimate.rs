//! What a backfill would do: records, tokens, time, money.

use anyhow::Result;
use cronvec_store::projects::Project;
use cronvec_store::sources::ColumnIndexes;
use serde::Serialize;

use crate::app::App;
use crate::cost::{self, Cost};
use crate::indexes;
use crate::output::count;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Estimate {
    pub project: String,
    /// Without vectors of their current text.
    pub records: i64,
    /// Of these, those that wait already.
    pub pending: i64,
    #[serde(flatten)]
    pub cost: Cost,
    pub model: String,
    /// At the last day's rate of the same model; null when it embedded nothing.
    pub seconds: Option<f64>,
    pub records_per_second: Option<f64>,
    /// Of an attached table with an embedding column.
    pub column_indexes: Option<ColumnIndexes>,
}

#[allow(clippy::cast_precision_loss, reason = "an estimate of counts")]
pub(super) async fn of(app: &App, project: &Project, lanes: i16) -> Result<Estimate> {
    let missing = app.store().missing(project.id).await?;
    let spec = app.live_space(project).await?;
    let cost = cost::of(app, &spec, missing.bytes as f64, &missing.sample).await;
    let rate = app.store().measured_rate_of(project.id).await?;
    let rate = rate.map(|rate| rate * f64::from(lanes));
    Ok(Estimate {
        project: project.name.clone(),
        records: missing.records,
        pending: missing.pending,
        cost,
        model: spec.model,
        seconds: rate.map(|rate| (missing.records as f64 / rate * 10.0).round() / 10.0),
        records_per_second: rate.map(|rate| (rate * 10.0).round() / 10.0),
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
        let cost = self.cost.in_words(&self.model);
        let mut text = format!(
            "project {}, model {}\n  records  {}, {} of them wait already\n  tokens   about {}\n  time     {time}\n  cost     {cost}",
            self.project,
            self.model,
            count(self.records),
            count(self.pending),
            count(self.cost.tokens),
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
