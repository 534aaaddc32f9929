//! `doctor`: what is wrong with an installation, and the mend.

mod write;

use anyhow::Result;
use cronvec_pipeline::canary;
use cronvec_provider::Failure;
use cronvec_store::health::Server;
use cronvec_store::migrate::SchemaError;
use cronvec_store::selection::JobFilter;

use crate::Context;
use crate::app::App;
use crate::checks::{self, Check};
use crate::exit::Ended;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Send no canary to the providers
    #[arg(long)]
    offline: bool,
    /// Also put, embed, find and delete one record, in a project that is made for it and taken away again
    #[arg(long, conflicts_with = "offline")]
    write: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = App::open().await?;
    let mut all = vec![checks::secret(&app)];
    let (database, reachable) = checks::database(&app).await;
    all.push(database);
    if reachable {
        all.extend(of_the_database(&app).await?);
    }
    if !args.offline {
        all.extend(providers(&app, reachable).await);
    }
    if args.write && reachable {
        all.extend(write::checks(&app, context).await);
    }
    context.output.list(&all, checks::table)?;
    Ok(match checks::all_well(&all) {
        true => Ended::Well,
        false => Ended::Unhealthy,
    })
}

async fn of_the_database(app: &App) -> Result<Vec<Check>> {
    let mut all = vec![server(&app.store().server().await?), pgvector(app).await];
    all.extend(defaults(app).await?);
    let (schema, known) = checks::schema(app).await;
    all.push(schema);
    if !known {
        return Ok(all);
    }
    all.push(match app.verify_schema().await? {
        Ok(()) => Check::ok("schema's objects", "as the migrations made them"),
        Err(unbound @ SchemaError::Unbound(_)) => {
            Check::fail("schema's objects", unbound.to_string(), "cronvec migrate up")
        }
        Err(difference) => Check::fail(
            "schema's objects",
            difference.to_string(),
            "put back what is named as the program's file of that migration makes it (migrations/ in the source): records and \
             vectors stay. Where that can't be found out, restore a backup. Don't uninstall: that deletes all records and vectors",
        ),
    });
    all.push(match app.verify_numbers().await? {
        Ok(()) => Check::ok("sequences", "ahead of the data"),
        Err(behind) => Check::fail(
            "sequences",
            format!("{behind}: new writes would lose to older ones"),
            "cronvec migrate up; the next tick does it as well",
        ),
    });
    all.push(columns(app).await?);
    all.extend(tables(app).await?);
    all.extend(checks::queue(app).await?);
    all.push(stopped(app).await?);
    all.push(rate_limits(app).await?);
    all.push(payloads(app).await?);
    all.push(failures(app).await?);
    Ok(all)
}

fn server(server: &Server) -> Check {
    let check = "database's health";
    if server.is_read_only {
        return Check::fail(
            check,
            "it is a replica, or read-only: nothing can be stored",
            "let DATABASE_URL name the primary",
        );
    }
    if server.connections * 10 >= server.max_connections * 9 {
        return Check::fail(
            check,
            format!(
                "{} of {} connections are taken",
                server.connections, server.max_connections
            ),
            "put a pooler before it, raise max_connections, or run fewer workers",
        );
    }
    if let Some(minutes) = server.oldest_transaction_minutes.filter(|minutes| *minutes > 15.0) {
        return Check::warn(
            check,
            format!("a transaction has been open for {minutes:.0} minutes: vacuum can't clean up behind it"),
            "find it in pg_stat_activity by xact_start, and end it",
        );
    }
    Check::ok(
        check,
        format!(
            "PostgreSQL {}, {} of {} connections",
            server.version, server.connections, server.max_connections
        ),
    )
}

/// Defaults of the role or the database that are meant for others. Work goes on in spite of them, for a price.
async fn defaults(app: &App) -> Result<Vec<Check>> {
    let check = "session defaults";
    let harmful = match app.store().harmful_defaults().await {
        Ok(harmful) => harmful,
        Err(error) if error.is_cancelled() => {
            return Ok(vec![Check::warn(
                check,
                "a statement that looks at the settings isn't given the time that it needs",
                "see statement_timeout of this role and this database: \\drds in psql",
            )]);
        }
        Err(error) => return Err(error.into()),
    };
    if harmful.is_empty() {
        return Ok(vec![Check::ok(check, "none that statements have to work around")]);
    }
    let told = harmful.into_iter().map(|default| {
        let found = format!(
            "{} = {}, set by {}: work goes on, but every statement needs a transaction of its own",
            default.name, default.value, default.set_by
        );
        Check::warn(check, found, default.fix)
    });
    Ok(told.collect())
}

async fn pgvector(app: &App) -> Check {
    let check = "pgvector";
    match app.store().vector_version().await {
        Ok(Some((version, false))) => Check::ok(check, format!("version {version}")),
        Ok(Some((version, true))) => Check::fail(
            check,
            format!("version {version} is too old; 0.7 is needed"),
            "ALTER EXTENSION vector UPDATE, after installing a newer one on the server",
        ),
        Ok(None) => Check::fail(
            check,
            "the extension 'vector' is missing",
            "install pgvector on the server, then: cronvec migrate up, or as a superuser CREATE EXTENSION vector",
        ),
        Err(error) => Check::fail(check, error.to_string(), "see that the database answers"),
    }
}

/// Whether each space's partition takes vectors of its width.
async fn columns(app: &App) -> Result<Check> {
    let wrong = app.store().wrong_vector_columns().await?;
    Ok(match wrong.first() {
        None => Check::ok("embedding columns", "each is as wide as its space"),
        Some(wrong) => Check::fail(
            "embedding columns",
            wrong.clone(),
            "if pgvector was dropped: cronvec migrate up; else put the partition's column and its check back as they were made: vectors of another width can't be searched",
        ),
    })
}

/// Whether each attached table still is as attaching left it. A healthy one is counted, not listed.
async fn tables(app: &App) -> Result<Vec<Check>> {
    let sources = app.store().sources().await?;
    let mut all = Vec::new();
    for source in &sources {
        let check = format!("table {}", source.table);
        for fault in app.store().source_faults(source).await? {
            all.push(match fault.fails {
                true => Check::fail(&check, fault.found, fault.mend),
                false => Check::warn(&check, fault.found, fault.mend),
            });
        }
    }
    if all.is_empty() {
        let found = match sources.len() {
            0 => "none is attached".to_owned(),
            tables => format!("{tables}, with their triggers, functions, columns and rights"),
        };
        all.push(Check::ok("attached tables", found));
    }
    Ok(all)
}

async fn stopped(app: &App) -> Result<Check> {
    let projects = app.projects().await?;
    let names: Vec<&str> = projects
        .iter()
        .filter(|project| project.paused)
        .map(|project| project.name.as_str())
        .collect();
    if projects.is_empty() {
        return Ok(Check::warn(
            "projects",
            "there is none yet",
            "cronvec projects create NAME",
        ));
    }
    Ok(match names.as_slice() {
        [] => Check::ok("projects", "none is stopped"),
        [first, ..] => Check::warn(
            "projects",
            format!("stopped: {}", names.join(", ")),
            format!("cronvec start {first}"),
        ),
    })
}

async fn rate_limits(app: &App) -> Result<Check> {
    let pauses = app.store().pauses(None).await?;
    let limited = pauses.iter().find(|pause| {
        let message = pause.message.to_lowercase();
        !pause.circuit && (message.contains("429") || message.contains("rate") || message.contains("limit"))
    });
    Ok(match limited {
        Some(pause) => Check::warn(
            "rate limits",
            format!("{} for {:.0} s: {}", pause.endpoint, pause.seconds_left, pause.message),
            "nothing, work goes on by itself; if it is too slow, ask the provider for a higher limit or lower EMBEDDING_CONCURRENT_REQUESTS",
        ),
        None => Check::ok("rate limits", "no provider limits us now"),
    })
}

async fn payloads(app: &App) -> Result<Check> {
    let (rejected, example) = app.store().too_large_rejects().await?;
    Ok(match rejected {
        0 => Check::ok("payload sizes", "no record was too large lately"),
        _ => Check::warn(
            "payload sizes",
            format!("{rejected} records were too large lately: {example}"),
            "raise MAX_CONTENT_BYTES, or cut the texts; the records are kept, see `cronvec ingest --rejects`",
        ),
    })
}

async fn failures(app: &App) -> Result<Check> {
    let groups = app.store().failed_jobs_by_reason(&JobFilter::default()).await?;
    Ok(match groups.first() {
        None => Check::ok("failed jobs", "none"),
        Some(group) => Check::warn(
            "failed jobs",
            format!("{} of project {}: {}", group.count, group.project, group.reason),
            format!("see `cronvec failed --details`, then: cronvec retry {}", group.example),
        ),
    })
}

/// A canary to each; of a database that isn't there, to the settings' own provider alone.
async fn providers(app: &App, with_projects: bool) -> Vec<Check> {
    let own = vec![app.settings().embedding.new_space.clone()];
    let specs = match with_projects {
        true => app.ways_to_embed().await.unwrap_or(own),
        false => own,
    };
    let mut all = Vec::new();
    for spec in specs {
        let check = format!("provider {} {}", spec.provider, spec.model);
        let tried = match app.provider(&spec).await {
            Ok(provider) => canary::try_provider(&provider).await,
            Err(unserved) => Err(Failure::Misconfigured {
                message: unserved.to_string(),
            }),
        };
        all.push(match tried {
            Ok(took) => Check::ok(check, format!("answers in {} ms", took.as_millis())),
            Err(failure) => Check::fail(check, failure.to_string(), failure.mend()),
        });
    }
    all
}
