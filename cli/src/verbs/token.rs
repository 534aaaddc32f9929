//! `token create|list|revoke`

use anyhow::{Result, bail};
use serde_json::json;
use shared::store::tokens::{NewToken, TokenView};
use shared::token::{self, Role};

use super::{as_usage, left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use crate::output::{Align, Table, brief};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// A new token; its secret is shown this once
    Create(Create),
    /// The tokens and when each was used last; never their secrets
    List(List),
    /// End a token and every session that began with it
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Whose it is, or what for
    name: String,
    /// reader (searches, reads records), producer (writes them, too), manager (reads the queue) or admin (all)
    #[arg(long)]
    role: Role,
    /// Only this project; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    project: Vec<String>,
    /// It ends by itself after so many days [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    expires: Option<u16>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Those that were revoked or ran out, too
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// Its id or its name
    token: String,
}

pub(crate) async fn run(action: Action, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    match action {
        Action::Create(args) => create(&app, args, context).await,
        Action::List(args) => {
            let tokens = app.store().tokens(args.all).await?;
            context.output.list(&tokens, table)?;
            Ok(Ended::Well)
        }
        Action::Revoke(args) => revoke(&app, args, context).await,
    }
}

async fn create(app: &App, args: Create, context: &Context) -> Result<Ended> {
    for name in &args.project {
        app.store().project(name).await?;
    }
    let secret = token::generate();
    let new = NewToken {
        name: &args.name,
        role: args.role,
        projects: Some(args.project.as_slice()).filter(|projects| !projects.is_empty()),
        hash: token::hash(&secret),
        hint: &token::hint(&secret),
        expires_in_days: args.expires.map(f64::from),
    };
    let made = app.store().create_token(&new).await.map_err(as_usage)?;
    app.audit("token", "token created", &[made.id.clone(), made.name.clone()], None)
        .await;
    let mut shown = serde_json::to_value(&made)?;
    shown["token"] = secret.as_str().into();
    context.output.show(&shown, || secret.clone())?;
    context.output.note(format!(
        "token {} of {} ({}); it isn't shown again",
        made.id, made.name, made.role
    ));
    Ok(Ended::Well)
}

async fn revoke(app: &App, args: Revoke, context: &Context) -> Result<Ended> {
    let found = app
        .store()
        .tokens(true)
        .await?
        .into_iter()
        .find(|token| token.revoked_at.is_none() && (token.id == args.token || token.name == args.token));
    let Some(found) = found else {
        return Err(usage(format!("no token '{}' that isn't revoked", args.token)));
    };
    let question = format!(
        "Revoke token {} of {}? Whoever uses it is refused from then on.",
        found.id, found.name
    );
    if !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    let Some(revoked) = app.store().revoke_token(found.id.parse()?).await? else {
        bail!("somebody else has just revoked it");
    };
    app.audit(
        "token",
        "token revoked",
        &[revoked.id.clone(), revoked.name.clone()],
        None,
    )
    .await;
    context.output.show(
        &json!({"success": true, "id": revoked.id, "name": revoked.name}),
        || format!("token {} of {} is revoked", revoked.id, revoked.name),
    )?;
    Ok(Ended::Well)
}

fn table(tokens: &[TokenView]) -> Table {
    let columns = [
        ("id", Align::Right),
        ("name", Align::Left),
        ("role", Align::Left),
        ("projects", Align::Left),
        ("begins", Align::Left),
        ("last used", Align::Left),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns, "no tokens: cronvec token create NAME --role admin");
    for token in tokens {
        let state = match (token.revoked_at, token.expires_at) {
            (Some(at), _) => format!("revoked {}", at.truncate_to_second()),
            (None, Some(at)) => format!("until {}", at.truncate_to_second()),
            (None, None) => String::new(),
        };
        table.row([
            token.id.clone(),
            brief(&token.name, 30),
            token.role.to_string(),
            token
                .projects
                .as_ref()
                .map_or_else(|| "all".to_owned(), |names| brief(&names.join(", "), 40)),
            format!("{}…", token.hint),
            token
                .last_used_at
                .map_or_else(String::new, |at| at.truncate_to_second().to_string()),
            state,
        ]);
    }
    table
}
