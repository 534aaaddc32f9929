//! Owns the rows of API tokens: made, found by their hash, revoked. Refuses to see a secret.

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Store, StoreError};
use cronvec_nouns::token::{Reach, Role};

/// Tokens that a list has at most.
const LISTED: i64 = 1000;

/// A token to be.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    pub name: &'a str,
    pub role: Role,
    /// None: all.
    pub projects: Option<&'a [String]>,
    pub hash: [u8; 32],
    pub hint: &'a str,
    pub expires_in_days: Option<f64>,
}

/// A token as people see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    pub id: String,
    pub name: String,
    pub role: Role,
    /// None: all.
    pub projects: Option<Vec<String>>,
    /// How its secret begins.
    pub hint: String,
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_used_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub revoked_at: Option<OffsetDateTime>,
}

/// Who bears a token that is good.
#[derive(Debug, Clone)]
pub struct Bearer {
    pub token: i32,
    pub name: String,
    pub role: Role,
    pub reach: Reach,
}

const VIEW: &str = "id, name, role, projects, hint, created_at, last_used_at, expires_at, revoked_at";

/// A token that is good, by this condition; its use is noted, unless somebody is doing so.
fn good(condition: &str) -> String {
    format!(
        "WITH found AS MATERIALIZED (
             SELECT id, name, role, projects, hash, last_used_at FROM cronvec.api_tokens
             WHERE {condition} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
         ), stale AS MATERIALIZED (
             SELECT t.id FROM cronvec.api_tokens t
             WHERE t.id = (SELECT id FROM found WHERE last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
             FOR NO KEY UPDATE SKIP LOCKED
         ), used AS (
             UPDATE cronvec.api_tokens t SET last_used_at = now() FROM stale WHERE t.id = stale.id
         )
         SELECT id, name, role, projects, hash FROM found"
    )
}

impl Store {
    pub async fn create_token(&self, new: &NewToken<'_>) -> Result<TokenView, StoreError> {
        let length = new.name.chars().count();
        if !(1..=200).contains(&length) || new.name.contains('\0') {
            return Err(StoreError::Invalid(
                "a token's name has 1 to 200 characters, none of them NUL".into(),
            ));
        }
        if new.projects.is_some_and(<[String]>::is_empty) {
            return Err(StoreError::Invalid(
                "a token reaches all projects or at least one".into(),
            ));
        }
        let row = self
            .query_opt(
                &format!(
                    "INSERT INTO cronvec.api_tokens (name, role, projects, hash, hint, expires_at)
                     VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6 * 86400))
                     ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING RETURNING {VIEW}"
                ),
                &[
                    (&new.name, Type::TEXT),
                    (&new.role.as_str(), Type::TEXT),
                    (&new.projects, Type::TEXT_ARRAY),
                    (&new.hash.as_slice(), Type::BYTEA),
                    (&new.hint, Type::TEXT),
                    (&new.expires_in_days, Type::FLOAT8),
                ],
            )
            .await?;
        let row = row.ok_or_else(|| StoreError::Conflict(format!("there is a token named '{}' already", new.name)))?;
        view(&row)
    }

    /// Those that are good, or all of them with those that were revoked or ran out; the newest first.
    pub async fn tokens(&self, all: bool) -> Result<Vec<TokenView>, StoreError> {
        let statement = format!(
            "SELECT {VIEW} FROM cronvec.api_tokens
             WHERE $1 OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())) ORDER BY id DESC LIMIT $2"
        );
        let rows = self
            .query(&statement, &[(&all, Type::BOOL), (&LISTED, Type::INT8)])
            .await?;
        rows.iter().map(view).collect()
    }

    /// Ends a token, and with it all its sessions. `None`: there is none of this id that isn't revoked.
    pub async fn revoke_token(&self, id: i32) -> Result<Option<TokenView>, StoreError> {
        let statement = format!(
            "UPDATE cronvec.api_tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING {VIEW}"
        );
        let row = self.query_opt(&statement, &[(&id, Type::INT4)]).await?;
        row.as_ref().map(view).transpose()
    }

    /// Who bears the secret of this hash.
    pub async fn bearer_of_hash(&self, hash: &[u8; 32]) -> Result<Option<Bearer>, StoreError> {
        let row = self
            .query_opt(&good("hash = $1"), &[(&hash.as_slice(), Type::BYTEA)])
            .await?;
        match row {
            // An index compares as fast as it can; this doesn't.
            Some(row) if bool::from(row.get::<_, &[u8]>(4).ct_eq(hash)) => bearer(&row).map(Some),
            _ => Ok(None),
        }
    }

    /// Who began a session with the token of this id.
    pub async fn bearer_of_token(&self, id: i32) -> Result<Option<Bearer>, StoreError> {
        let row = self.query_opt(&good("id = $1"), &[(&id, Type::INT4)]).await?;
        row.as_ref().map(bearer).transpose()
    }
}

fn role(row: &Row) -> Result<Role, StoreError> {
    row.get::<_, &str>(2).parse().map_err(StoreError::Unreadable)
}

fn bearer(row: &Row) -> Result<Bearer, StoreError> {
    Ok(Bearer {
        token: row.get(0),
        name: row.get(1),
        role: role(row)?,
        reach: Reach::of(row.get(3)),
    })
}

fn view(row: &Row) -> Result<TokenView, StoreError> {
    Ok(TokenView {
        id: row.get::<_, i32>(0).to_string(),
        name: row.get(1),
        role: role(row)?,
        projects: row.get(3),
        hint: row.get(4),
        created_at: row.get(5),
        last_used_at: row.get(6),
        expires_at: row.get(7),
        revoked_at: row.get(8),
    })
}
