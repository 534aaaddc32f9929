//! `token create|list|revoke`

use anyhow::{Result, bail};
use cronvec_nouns::token::{self, Role};
use cronvec_store::tokens::{NewToken, TokenView};
use serde::Deserialize;
use serde_json::json;

use super::{as_usage, left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use crate::output::{Align, Table, brief};
use crate::remote::Remote;

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
    if let Some(remote) = &context.remote {
        return at_deployment(remote, action, context).await;
    }
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
    show_made(&made, &secret, context)
}

fn show_made(made: &TokenView, secret: &str, context: &Context) -> Result<Ended> {
    let mut shown = serde_json::to_value(made)?;
    shown["token"] = secret.into();
    context.output.show(&shown, || secret.to_owned())?;
    context.output.note(format!(
        "token {} of {} ({}); it isn't shown again",
        made.id, made.name, made.role
    ));
    Ok(Ended::Well)
}

#[derive(Deserialize)]
struct Made {
    #[serde(flatten)]
    made: TokenView,
    token: String,
}

async fn at_deployment(remote: &Remote, action: Action, context: &Context) -> Result<Ended> {
    const PATH: &str = "api/admin/tokens";
    match action {
        Action::Create(args) => {
            let mut new = json!({"name": args.name, "role": args.role});
            if !args.project.is_empty() {
                new["projects"] = args.project.into();
            }
            if let Some(days) = args.expires {
                new["expiresInDays"] = days.into();
            }
            let Made { made, token } = remote.post(PATH, &[], &new).await?;
            show_made(&made, &token, context)
        }
        Action::List(args) => {
            let all = args.all.to_string();
            let tokens: Vec<TokenView> = remote.get(PATH, &[("all", &all)]).await?;
            context.output.list(&tokens, table)?;
            Ok(Ended::Well)
        }
        Action::Revoke(args) => {
            let found = to_revoke(remote.get(PATH, &[("all", "true")]).await?, &args.token)?;
            if !may_revoke(&found, context)? {
                return left_as_it_is(context);
            }
            let revoked: TokenView = remote.delete(&format!("{PATH}/{}", found.id)).await?;
            show_revoked(&revoked, context)
        }
    }
}

async fn revoke(app: &App, args: Revoke, context: &Context) -> Result<Ended> {
    let found = to_revoke(app.store().tokens(true).await?, &args.token)?;
    if !may_revoke(&found, context)? {
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
    show_revoked(&revoked, context)
}

fn to_revoke(tokens: Vec<TokenView>, named: &str) -> Result<TokenView> {
    let mut tokens = tokens.into_iter();
    let found = tokens.find(|token| token.revoked_at.is_none() && (token.id == named || token.name == named));
    found.ok_or_else(|| usage(format!("no token '{named}' that isn't revoked")))
}

fn may_revoke(found: &TokenView, context: &Context) -> Result<bool> {
    context.confirm(&format!(
        "Revoke token {} of {}? Whoever uses it is refused from then on.",
        found.id, found.name
    ))
}

fn show_revoked(revoked: &TokenView, context: &Context) -> Result<Ended> {
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
