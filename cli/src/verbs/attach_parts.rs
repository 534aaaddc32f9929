//! What attaching a table for the first time and once more have in common: the options, the question what it may cost, what
//! is shown in the end.

use anyhow::Result;
use cronvec_nouns::space::SpaceSpec;
use cronvec_pipeline::AdoptionCheck;
use cronvec_store::projects::{Coverage, Project};
use cronvec_store::sources::{ColumnIndexes, NewSource, Source};
use serde::Serialize;
use serde_json::json;

use super::as_usage;
use super::reconcile::Told;
use crate::Context;
use crate::app::App;
use crate::cost::{self, Cost};
use crate::exit::Ended;
use crate::output::count;
use crate::{adoption, indexes};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The table, with its schema where it isn't on the search path
    pub(super) table: String,
    /// The columns that tell its rows apart, parted by commas; the primary key if left out
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(super) id: Vec<String>,
    /// What is embedded: columns, parted by commas, or an SQL expression over a row
    #[arg(long, value_name = "SQL")]
    pub(super) text: String,
    /// What a search can filter by: columns, or an expression that gives a JSON object
    #[arg(long, value_name = "SQL")]
    pub(super) metadata: Option<String>,
    /// Only rows for which this is true
    #[arg(long = "where", value_name = "SQL")]
    pub(super) filter: Option<String>,
    /// The project that its rows are records of; made if need be, by default named as the table
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
    /// A vector column of the table that gets the vectors, too
    #[arg(long, value_name = "COLUMN")]
    pub(super) embedding_column: Option<String>,
    /// What becomes of the column's vector when the text changes, until the new one is there
    #[arg(long, value_name = "WHAT", default_value = "keep", requires = "embedding_column")]
    pub(super) on_change: OnChange,
    /// The column's vectors are this model's: take them for those of the texts that stand beside them
    #[arg(long, value_name = "MODEL")]
    pub(super) adopt_existing: Option<String>,
    /// Take the column's vectors without comparing some of them with what the model gives their texts
    #[arg(long, requires = "adopt_existing")]
    pub(super) force_adopt: bool,
    /// Let the table's rows replace the records that the project has already, and delete those without a row; asks first
    #[arg(long)]
    pub(super) take_over: bool,
    /// Say what it would do and cost, and attach nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print the functions and triggers that it would make, as SQL, and attach nothing
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) print_sql: bool,
    /// Attach, and stop the project: nothing is embedded until `cronvec start PROJECT`
    #[arg(long)]
    pub(super) no_embed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OnChange {
    Keep,
    Null,
}

pub(super) fn say_stopped(args: &Args, project: &str, context: &Context) {
    if args.no_embed {
        context.output.note(format!(
            "project {project} is stopped: nothing of it is embedded until: cronvec start {project}; what that costs: cronvec \
             backfill --project {project} --dry-run"
        ));
    }
}

/// What a person said to the price.
pub(super) enum Asked {
    Yes,
    No,
    /// It was only to be told.
    Told,
}

/// Says what is sent and what that costs, and asks, unless nothing is paid for, or the answer is known.
pub(super) async fn agree(
    app: &App,
    args: &Args,
    new: &NewSource<'_>,
    project: &Project,
    space: &SpaceSpec,
    source: Option<&Source>,
    context: &Context,
) -> Result<Asked> {
    let is_free = args.no_embed || cost::price(app, space) == Some(0.0);
    if (is_free || context.yes) && !args.dry_run {
        return Ok(Asked::Yes);
    }
    let preview = app
        .store()
        .preview_attach(new, project, space, source)
        .await
        .map_err(as_usage)?;
    let cost = cost::of(app, space, preview.bytes.unwrap_or_default(), &preview.sample).await;
    let estimate = Estimate {
        table: preview.table,
        project: project.name.clone(),
        rows: preview.rows,
        is_exact: preview.is_exact,
        has_cost: preview.bytes.is_some() || preview.rows == 0,
        cost,
        model: space.model.clone(),
    };
    if args.dry_run {
        context.output.show(&estimate, || estimate.in_words())?;
        return Ok(Asked::Told);
    }
    context.output.note(estimate.in_words());
    let question = format!(
        "Attach {} to project {} and embed its {} rows?",
        estimate.table,
        estimate.project,
        count(u64::try_from(estimate.rows).unwrap_or_default())
    );
    match (estimate.rows, estimate.is_exact) {
        (0, true) => Ok(Asked::Yes),
        _ if context.confirm(&question)? => Ok(Asked::Yes),
        _ => Ok(Asked::No),
    }
}

pub(super) async fn print_sql(
    app: &App,
    new: &NewSource<'_>,
    project: &Project,
    space: &SpaceSpec,
    source: Option<&Source>,
    context: &Context,
) -> Result<Ended> {
    let sql = app
        .store()
        .sql_of(new, project, space, source)
        .await
        .map_err(as_usage)?;
    if source.is_none() {
        context
            .output
            .note("-- 0 stands for the number that the source will get");
    }
    context.output.show(&json!({ "sql": sql }), || {
        sql.iter().map(|statement| format!("{statement};\n")).collect()
    })?;
    Ok(Ended::Well)
}

/// What the rows of a table would send; all that is known before it is attached.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Estimate {
    table: String,
    project: String,
    rows: i64,
    #[serde(skip)]
    is_exact: bool,
    #[serde(skip)]
    has_cost: bool,
    #[serde(flatten)]
    cost: Cost,
    model: String,
}

impl Estimate {
    fn in_words(&self) -> String {
        let about = if self.is_exact { "" } else { "about " };
        let (tokens, cost) = match self.has_cost {
            true => (
                format!("about {}", count(u64::try_from(self.cost.tokens).unwrap_or_default())),
                self.cost.in_words(&self.model),
            ),
            false => ("unknown: no text could be looked at".to_owned(), "unknown".to_owned()),
        };
        format!(
            "{}, project {}, model {}\n  rows     {about}{} to embed at most: what the project has already isn't sent again\n  \
             tokens   {tokens}\n  cost     {cost}",
            self.table,
            self.project,
            self.model,
            count(u64::try_from(self.rows).unwrap_or_default())
        )
    }
}

/// An attached table, and what stands over its vectors.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    #[serde(flatten)]
    pub told: Told,
    pub column_indexes: Option<ColumnIndexes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adoption: Option<AdoptionCheck>,
    #[serde(skip)]
    pub coverage: Coverage,
}

fn rows(number: i64) -> String {
    match number {
        1 => "1 row".to_owned(),
        number => format!("{} rows", count(u64::try_from(number).unwrap_or_default())),
    }
}

impl Shown {
    pub fn in_words(&self) -> String {
        let source = &self.told.source;
        let mut lines = vec![format!("{} to embed", rows(self.coverage.pending))];
        if source.adopted > 0 {
            lines.push(format!("{} have their vectors already", rows(source.adopted)));
        }
        if self.coverage.quarantined > 0 {
            lines.push(format!(
                "{} can't be embedded: cronvec failed --details",
                rows(self.coverage.quarantined)
            ));
        }
        lines.extend(self.adoption.as_ref().map(adoption::in_words));
        lines.extend(self.column_indexes.as_ref().and_then(indexes::before_filling));
        lines.push(format!(
            "each tick embeds what waits: cronvec tick vectorization; cronvec coverage --project {}",
            source.project
        ));
        lines.join("\n")
    }
}
