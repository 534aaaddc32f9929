//! `attach TABLE`

use anyhow::Result;
use cronvec_pipeline::AdoptionCheck;
use cronvec_store::sources::{NewSource, Source};

pub(crate) use super::attach_parts::Args;
use super::attach_parts::{Asked, OnChange, Shown, agree, print_sql, say_stopped};
use super::reconcile::{take_over_in_words, to_the_end};
use super::{as_usage, attach_again, left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use crate::{adoption, indexes};

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
