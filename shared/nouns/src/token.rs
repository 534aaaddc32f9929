//! Owns what an API token is: its secret's form, its role, what the role may do, which projects it reaches. Refuses to
//! know where tokens are kept and how they are sent.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use sha2::{Digest, Sha256};

/// Secrets begin with it, so that they are recognised where they shouldn't be.
pub const PREFIX: &str = "cvk_";
/// Characters behind the prefix that lists show: 24 of 256 bits.
const SHOWN: usize = 4;

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Searches and reads records.
    Reader,
    /// Writes them, too.
    Producer,
    /// Reads the queue and the page.
    Manager,
    /// May do all of it.
    Admin,
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    ReadRecords,
    WriteRecords,
    ReadQueue,
    Act,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Reader, Self::Producer, Self::Manager, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Producer => "producer",
            Self::Manager => "manager",
            Self::Admin => "admin",
        }
    }

    pub fn may(self, right: Right) -> bool {
        match self {
            Self::Reader => right == Right::ReadRecords,
            Self::Producer => matches!(right, Right::ReadRecords | Right::WriteRecords),
            Self::Manager => right == Right::ReadQueue,
            Self::Admin => true,
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == name);
        found.ok_or_else(|| "it is reader, producer, manager or admin".to_owned())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which projects somebody sees: all, or these and nothing of any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach(Option<Vec<String>>);

impl Reach {
    pub const ALL: Self = Self(None);

    pub fn of(projects: Option<Vec<String>>) -> Self {
        Self(projects)
    }

    pub fn includes(&self, project: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|these| these.iter().any(|name| name == project))
    }

    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// One after another, as filters take them; a single `None`: all of them.
    pub fn each(&self) -> Vec<Option<String>> {
        match &self.0 {
            None => vec![None],
            Some(names) => names.iter().cloned().map(Some).collect(),
        }
    }

    /// None: all of them.
    pub fn projects(&self) -> Option<&[String]> {
        self.0.as_deref()
    }
}

/// A new secret: 256 random bits behind the prefix.
pub fn generate() -> String {
    let mut bits = [0_u8; 32];
    rand::rng().fill_bytes(&mut bits);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits))
}

/// What is kept of a secret. With that many random bits nothing slower is needed.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// How a secret begins.
pub fn hint(secret: &str) -> String {
    secret.chars().take(PREFIX.len() + SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_secrets_are_alike_and_all_can_be_sent_in_a_header() {
        let (one, other) = (generate(), generate());
        assert_ne!(one, other);
        assert_eq!(one.len(), 47);
        assert!(
            one.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        assert!(one.starts_with(&hint(&one)));
    }

    #[test]
    fn each_role_may_what_it_is_for() {
        let may = |role: Role| {
            [Right::ReadRecords, Right::WriteRecords, Right::ReadQueue, Right::Act].map(|right| role.may(right))
        };
        assert_eq!(may(Role::Reader), [true, false, false, false]);
        assert_eq!(may(Role::Producer), [true, true, false, false]);
        assert_eq!(may(Role::Manager), [false, false, true, false]);
        assert_eq!(may(Role::Admin), [true; 4]);
    }
}
