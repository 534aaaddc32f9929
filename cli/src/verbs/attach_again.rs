//! `attach TABLE` of a table that is attached already: nothing, or what is said otherwise in place.

use anyhow::Result;
use cronvec_store::sources::{Changes, NewSource, Source};

use super::attach_parts::{Args, Asked, Shown, agree, print_sql, say_stopped};
use super::reconcile::{Told, to_the_end};
use super::{as_usage, left_as_it_is};
use crate::Context;
use crate::app::App;
use crate::exit::Ended;
use crate::indexes;

pub(super) async fn run(
    app: &App,
    args: &Args,
    new: &NewSource<'_>,
    source: Source,
    context: &Context,
) -> Result<Ended> {
    let project = app.store().project(&source.project).await?;
    let space = app.live_space(&project).await?;
    if args.print_sql {
        return print_sql(app, new, &project, &space, Some(&source), context).await;
    }
    let changes = app.store().changes(new, &project, &space, &source).await;
    let changes = changes.map_err(as_usage)?;
    let name = &source.project.clone();
    if changes.is_empty() {
        context.output.note(format!(
            "{} is attached to project {name} just so: nothing is changed",
            source.table
        ));
        return show(app, Told { source, written: 0 }, context).await;
    }
    let said = in_words(&source, &changes);
    context.output.note(&said);
    let agreed = match changes.may_embed() || args.dry_run {
        true => agree(app, args, new, &project, &space, Some(&source), context).await?,
        false => Asked::Yes,
    };
    match agreed {
        Asked::Yes => {}
        Asked::No => return left_as_it_is(context),
        Asked::Told => return Ok(Ended::Well),
    }
    if args.no_embed {
        app.set_paused(name, true).await?;
    }
    // Another --where is a person's word that rows are no records any more.
    let allow_deletes = changes.options.contains(&"--where");
    let altered = app
        .store()
        .alter_source(new, &project, &space, &source, allow_deletes)
        .await;
    let source = altered.map_err(as_usage)?;
    app.audit("source", &said, std::slice::from_ref(&source.table), None)
        .await;
    let told = to_the_end(app, &source, context).await?;
    say_stopped(args, name, context);
    show(app, told, context).await
}

async fn show(app: &App, told: Told, context: &Context) -> Result<Ended> {
    let column_indexes = indexes::of(app, &told.source).await?;
    let shown = Shown {
        coverage: app.store().coverage(&told.source.project).await?,
        told,
        column_indexes,
        adoption: None,
    };
    context.output.show(&shown, || shown.in_words())?;
    Ok(Ended::Well)
}

fn in_words(source: &Source, changes: &Changes) -> String {
    let mut said = Vec::new();
    if let Some(former) = &changes.former_name {
        said.push(format!("the table was {former}, or another of its name"));
    }
    if !changes.options.is_empty() {
        said.push(format!("other {}", changes.options.join(", ")));
    }
    let why = match said.is_empty() {
        true => "its functions and triggers aren't as they were made".to_owned(),
        false => said.join("; "),
    };
    format!(
        "{} is attached to project {} already; made anew in place: {why}",
        source.table, source.project
    )
}
