//! `attach TABLE`

use anyhow::Result;
use cronvec_nouns::space::SpaceSpec;
use cronvec_pipeline::AdoptionCheck;
use cronvec_store::projects::{Coverage, Project};
use cronvec_store::sources::{ColumnIndexes, NewSource, Source, TakeOver};
use serde::Serialize;
use serde_json::json;

use super::reconcile::{Told, to_the_end};
use super::{as_usage, attach_again, left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::cost::{self, Cost};
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
enum OnChange {
    Keep,
    Null,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    if args.text.trim().is_empty() {
        return Err(usage("--text is empty: name the columns whose text is embedded"));
    }
    let app = ready().await?;
    let new = asked_for(&args);
    let existing = app.store().attached_source(&args.table, args.project.as_deref()).await;
    if let Some(source) = existing.map_err(as_usage)? {
        return attach_again::run(&app, &args, &new, source, context).await;
    }
    let named = app.store().table_name(&args.table).await.map_err(as_usage)?;
    let name = args.project.clone().unwrap_or(named);
    let is_new = app.create_project(&name).await?;
    let attached = attach(&app, &args, new, &name, context).await;
    if is_new && !matches!(attached, Ok(Ok(_))) {
        app.store().forget_empty_project(&name).await?;
    }
    let (source, adoption) = match attached? {
        Ok(attached) => attached,
        Err(ended) => return Ok(ended),
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
    say_stopped(&args, &name, context);
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

fn asked_for(args: &Args) -> NewSource<'_> {
    NewSource {
        table: &args.table,
        key: &args.id,
        text: &args.text,
        metadata: args.metadata.as_deref(),
        filter: args.filter.as_deref(),
        embedding_column: args.embedding_column.as_deref(),
        forgets: args.on_change == OnChange::Null,
        adopt: args.adopt_existing.as_deref(),
        take_over: None,
    }
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

/// The error is how it ended without: the person said no, or only wanted to know.
async fn attach(
    app: &App,
    args: &Args,
    mut new: NewSource<'_>,
    name: &str,
    context: &Context,
) -> Result<Result<(Source, Option<AdoptionCheck>), Ended>> {
    let project = app.store().project(name).await?;
    let space = app.live_space(&project).await?;
    if args.print_sql {
        return Ok(Err(print_sql(app, &new, &project, &space, None, context).await?));
    }
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
                return Ok(Err(left_as_it_is(context)?));
            }
            new.take_over = Some(found.before);
        }
    }
    match agree(app, args, &new, &project, &space, None, context).await? {
        Asked::Yes => {}
        Asked::No => return Ok(Err(left_as_it_is(context)?)),
        Asked::Told => return Ok(Err(Ended::Well)),
    }
    let adoption = match args.force_adopt {
        true => None,
        false => adoption::check(app, &new, &project, &space).await?,
    };
    let stops = args.no_embed && !project.paused;
    if stops {
        app.set_paused(name, true).await?;
    }
    let attached = app.store().attach(&new, &project, &space).await;
    if stops && attached.is_err() {
        app.set_paused(name, false).await?;
    }
    Ok(Ok((attached.map_err(as_usage)?, adoption)))
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
