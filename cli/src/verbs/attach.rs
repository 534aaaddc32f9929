//! `attach TABLE`

use anyhow::Result;
use serde::Serialize;
use shared::pipeline::AdoptionCheck;
use shared::store::projects::Coverage;
use shared::store::sources::{ColumnIndexes, NewSource, Source, TakeOver};

use super::reconcile::{Told, to_the_end};
use super::{as_usage, left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use crate::output::count;
use crate::{adoption, indexes};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The table, with its schema where it isn't on the search path
    table: String,
    /// The columns that tell its rows apart, parted by commas; the primary key if left out
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    id: Vec<String>,
    /// What is embedded: columns, parted by commas, or an SQL expression over a row
    #[arg(long, value_name = "SQL")]
    text: String,
    /// What a search can filter by: columns, or an expression that gives a JSON object
    #[arg(long, value_name = "SQL")]
    metadata: Option<String>,
    /// Only rows for which this is true
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// The project that its rows are records of; made if need be, by default named as the table
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// A vector column of the table that gets the vectors, too
    #[arg(long, value_name = "COLUMN")]
    embedding_column: Option<String>,
    /// What becomes of the column's vector when the text changes, until the new one is there
    #[arg(long, value_name = "WHAT", default_value = "keep", requires = "embedding_column")]
    on_change: OnChange,
    /// The column's vectors are this model's: take them for those of the texts that stand beside them
    #[arg(long, value_name = "MODEL")]
    adopt_existing: Option<String>,
    /// Take the column's vectors without comparing some of them with what the model gives their texts
    #[arg(long, requires = "adopt_existing")]
    force_adopt: bool,
    /// Let the table's rows replace the records that the project has already, and delete those without a row; asks first
    #[arg(long)]
    take_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OnChange {
    Keep,
    Null,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    if args.text.trim().is_empty() {
        return Err(usage("--text is empty: name the columns whose text is embedded"));
    }
    let app = ready().await?;
    let named = app.store().table_name(&args.table).await.map_err(as_usage)?;
    let name = args.project.clone().unwrap_or(named);
    let is_new = app.create_project(&name).await?;
    let attached = attach(&app, &args, &name, context).await;
    if is_new && !matches!(attached, Ok(Some(_))) {
        app.store().forget_empty_project(&name).await?;
    }
    let Some((source, adoption)) = attached? else {
        return left_as_it_is(context);
    };
    if is_new {
        app.audit("project", "project created", std::slice::from_ref(&name), None)
            .await;
    }
    let said = format!("table attached to project {name}");
    app.audit("source", &said, std::slice::from_ref(&source.table), None)
        .await;
    context.output.note(format!(
        "{} is attached to project {name}: from now on each change is noticed",
        source.table
    ));
    if let Some(owner) = app.store().foreign_owner(&source).await? {
        context.output.note(format!(
            "its expressions and triggers run in the workers' sessions, with the rights of {owner}: attach tables only of \
             owners that you trust with that, see docs/ATTACH.md"
        ));
    }
    let told = to_the_end(&app, &source, context).await?;
    let column_indexes = indexes::of(&app, &source).await?;
    let shown = Shown {
        coverage: app.store().coverage(&name).await?,
        told,
        column_indexes,
        adoption,
    };
    context.output.show(&shown, || shown.in_words())?;
    Ok(Ended::Well)
}

/// None: the person said no.
async fn attach(
    app: &App,
    args: &Args,
    name: &str,
    context: &Context,
) -> Result<Option<(Source, Option<AdoptionCheck>)>> {
    let project = app.store().project(name).await?;
    let space = app.live_space(&project).await?;
    let mut new = NewSource {
        table: &args.table,
        key: &args.id,
        text: &args.text,
        metadata: args.metadata.as_deref(),
        filter: args.filter.as_deref(),
        embedding_column: args.embedding_column.as_deref(),
        forgets: args.on_change == OnChange::Null,
        adopt: args.adopt_existing.as_deref(),
        take_over: None,
    };
    let adoption = match args.force_adopt {
        true => None,
        false => adoption::check(app, &new, &project, &space).await?,
    };
    if args.take_over {
        let found = app.store().preview_take_over(&new, &project, &space).await;
        let found = found.map_err(as_usage)?;
        if !found.is_empty() {
            let question = format!(
                "Attach {} to project {name}? {}",
                args.table,
                take_over_in_words(&found)
            );
            if !context.confirm(&question)? {
                return Ok(None);
            }
            new.take_over = Some(found.before);
        }
    }
    let attached = app.store().attach(&new, &project, &space).await;
    Ok(Some((attached.map_err(as_usage)?, adoption)))
}

/// What becomes of records that don't come from the table.
pub(super) fn take_over_in_words(found: &TakeOver) -> String {
    let mut said = format!(
        "Of the records that don't come from the table {} have a row and get its text, {} have none and are deleted.",
        count(u64::try_from(found.with_row).unwrap_or_default()),
        count(u64::try_from(found.without_row).unwrap_or_default())
    );
    if found.jobs > 0 {
        said += &format!(
            " {} unfinished INGEST_DATA jobs will fail; their payload is kept.",
            count(u64::try_from(found.jobs).unwrap_or_default())
        );
    }
    said
}

/// An attached table, and what stands over its vectors.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    told: Told,
    column_indexes: Option<ColumnIndexes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adoption: Option<AdoptionCheck>,
    #[serde(skip)]
    coverage: Coverage,
}

fn rows(number: i64) -> String {
    match number {
        1 => "1 row".to_owned(),
        number => format!("{} rows", count(u64::try_from(number).unwrap_or_default())),
    }
}

impl Shown {
    fn in_words(&self) -> String {
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
