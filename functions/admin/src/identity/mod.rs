//! Who calls: by an API token, or by the page's session that began with one. Everything else is refused.

mod address;
mod failures;
mod origin;
mod rate;
mod session;

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, header};
use cronvec_nouns::token::{self, Reach, Right, Role};
use cronvec_store::Store;
use cronvec_store::audit::{Act, IDS_NAMED};
use cronvec_store::tokens::Bearer;
use serde_json::{Value, json};

pub use address::SourceAddress;
pub use failures::Failures;
pub use rate::Rate;
pub use session::{HOURS, Sessions, set_cookie};

use crate::{Admin, Refusal};

pub(crate) use address::address;
pub(crate) use origin::{is_ours, may_be_ours};

use rate::Whose;

/// Somebody we know.
#[derive(Clone, Debug)]
pub struct Caller {
    pub token: i32,
    pub name: String,
    pub role: Role,
    pub reach: Reach,
}

impl Caller {
    /// Finds out who calls; the caller of a session that changes something must come from the page.
    async fn of(parts: &Parts, admin: &Admin) -> Result<Self, Refusal> {
        if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
            let secret = value.to_str().ok().and_then(|value| {
                let (scheme, secret) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
            });
            return admin.bearer(secret.unwrap_or_default(), address(parts)).await;
        }
        let Some(cookie) = session::cookie(&parts.headers) else {
            return Err(Refusal::unauthorised());
        };
        let caller = admin.session(cookie).await?;
        let is_reading = matches!(parts.method, Method::GET | Method::HEAD);
        if !is_reading && !is_ours(admin, &parts.headers) {
            return Err(Refusal::forbidden(
                "this call changes something and doesn't come from the page: its Origin isn't PUBLIC_URL's",
            ));
        }
        Ok(caller)
    }

    pub fn require(self, right: Right) -> Result<Self, Refusal> {
        if self.role.may(right) {
            return Ok(self);
        }
        Err(Refusal::forbidden(format!(
            "a token of the role {} may not do this",
            self.role
        )))
    }

    /// A project that this caller reaches.
    pub fn project<'a>(&self, name: &'a str) -> Result<&'a str, Refusal> {
        if self.reach.includes(name) {
            return Ok(name);
        }
        Err(Refusal::forbidden("this token doesn't reach this project"))
    }

    /// What concerns all projects.
    pub fn all_projects(&self) -> Result<(), Refusal> {
        if self.reach.is_all() {
            return Ok(());
        }
        Err(Refusal::forbidden(
            "this token is limited to projects, and this concerns all of them",
        ))
    }

    /// The projects that a call is about: the one that it names, or all that the caller reaches.
    pub fn narrowed(&self, project: Option<&str>) -> Result<Reach, Refusal> {
        match project {
            None => Ok(self.reach.clone()),
            Some(name) => Ok(Reach::of(Some(vec![self.project(name)?.to_owned()]))),
        }
    }

    /// The same of projects that are there.
    pub async fn chosen(&self, store: &Store, project: Option<&str>) -> Result<Reach, Refusal> {
        let reach = self.narrowed(project)?;
        if let Some(name) = project {
            store.project(name).await?;
        }
        Ok(reach)
    }

    /// Writes down what the caller did, to which ids.
    pub async fn audit(&self, store: &Store, category: &str, message: &str, ids: &[String], project: Option<&str>) {
        let named = &ids[..ids.len().min(IDS_NAMED)];
        let mut metadata =
            json!({"who": format!("token {} ({})", self.token, self.name), "ids": named, "count": ids.len()});
        if let Some(project) = project {
            metadata["project"] = Value::from(project);
        }
        let operation = (category == "backfill")
            .then(|| ids.first().map(String::as_str))
            .flatten();
        store
            .audit(Act {
                category,
                message,
                metadata,
                operation,
            })
            .await;
    }
}

impl Admin {
    /// Who bears this secret.
    pub(crate) async fn bearer(&self, secret: &str, from: Option<IpAddr>) -> Result<Caller, Refusal> {
        let hash = token::hash(secret);
        if !self.failures().was_good(&hash)
            && let Some(wait) = self.failures().wait(from)
        {
            return Err(Refusal::slow_down("too many failed attempts from this address", wait));
        }
        // What can't be a secret of ours isn't looked for.
        let found = match secret.starts_with(token::PREFIX) && secret.len() <= 100 {
            true => self.store().await?.bearer_of_hash(&hash).await?,
            false => None,
        };
        match found {
            Some(bearer) => {
                self.failures().note_good(hash);
                self.count(Whose::Bearer(bearer.token))?;
                Ok(bearer.into())
            }
            None => {
                self.failures().note(from);
                Err(Refusal::unauthorised())
            }
        }
    }

    /// Whose session this is. Nobody guesses a signature: who fails isn't slowed.
    async fn session(&self, cookie: &str) -> Result<Caller, Refusal> {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let Some(token) = self.sessions().token_of(cookie, now).await? else {
            return Err(Refusal::unauthorised());
        };
        let bearer = self.store().await?.bearer_of_token(token).await?;
        let bearer = bearer.ok_or_else(Refusal::unauthorised)?;
        self.count(Whose::Sessions(bearer.token))?;
        Ok(bearer.into())
    }

    /// One call more, if it isn't one too many.
    fn count(&self, whose: Whose) -> Result<(), Refusal> {
        match self.rate().wait(whose) {
            None => Ok(()),
            Some(wait) => Err(Refusal::slow_down("too many calls with this token", wait)),
        }
    }
}

impl From<Bearer> for Caller {
    fn from(bearer: Bearer) -> Self {
        Self {
            token: bearer.token,
            name: bearer.name,
            role: bearer.role,
            reach: bearer.reach,
        }
    }
}

/// A caller who may do what the handler does: there is no other way to one.
macro_rules! callers {
    ($($(#[$doc:meta])* $name:ident: $right:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name(pub Caller);

        impl FromRequestParts<Admin> for $name {
            type Rejection = Refusal;

            async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Refusal> {
                Caller::of(parts, admin).await?.require(Right::$right).map(Self)
            }
        }
    )*};
}

callers! {
    /// May search and read records.
    Reads: ReadRecords;
    /// May write records.
    Writes: WriteRecords;
    /// May see the queue.
    Watches: ReadQueue;
    /// May do everything, to the projects that it reaches.
    Acts: Act;
}

/// Anybody we know.
impl FromRequestParts<Admin> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Refusal> {
        Self::of(parts, admin).await
    }
}
