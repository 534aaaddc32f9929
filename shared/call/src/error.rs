//! Owns how a call can go wrong, and whose fault it is. Refuses to tell more than its caller may know.

use std::error::Error;

use cronvec_edges::cause::chain;
use cronvec_secrets::SecretError;
use cronvec_store::{StoreError, connect};

/// Why a call has no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request says something that it can't mean.
    #[error("{message}")]
    BadRequest { message: String },
    /// No bearer, or a wrong one.
    #[error("unauthorised: a valid bearer secret is needed")]
    Unauthorised,
    /// Nothing lives at this path.
    #[error("no such path: {path}")]
    NotFound { path: String },
    /// The path takes other methods.
    #[error("method {method} isn't allowed here; allowed: {allowed}")]
    MethodNotAllowed { method: String, allowed: &'static str },
    /// Ours to set right before anything works.
    #[error("{message}")]
    NotConfigured { message: String },
    /// Something that we depend on isn't there.
    #[error("{message}")]
    Dependency { message: String },
    /// A fault of ours.
    #[error("{message}")]
    Failed { message: String },
}

impl CallError {
    /// What every call gets while the settings have problems; these are told in the log, since nobody's right to
    /// know them can be checked.
    pub fn unread_settings() -> Self {
        Self::NotConfigured {
            message: "the settings have problems; the log names each".to_owned(),
        }
    }

    /// The HTTP status that says the same.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest { .. } => 400,
            Self::Unauthorised => 401,
            Self::NotFound { .. } => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::NotConfigured { .. } | Self::Failed { .. } => 500,
            Self::Dependency { .. } => 503,
        }
    }

    /// A short name for the kind, as the type of a function error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } => "BadRequest",
            Self::Unauthorised => "Unauthorised",
            Self::NotFound { .. } => "NotFound",
            Self::MethodNotAllowed { .. } => "MethodNotAllowed",
            Self::NotConfigured { .. } => "NotConfigured",
            Self::Dependency { .. } => "Dependency",
            Self::Failed { .. } => "Failed",
        }
    }

    /// The header that HTTP asks for beside this status.
    pub(super) fn header(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Unauthorised => Some(("www-authenticate", "Bearer")),
            Self::MethodNotAllowed { allowed, .. } => Some(("allow", allowed)),
            _ => None,
        }
    }

    /// What went wrong in the work itself: a dependency's fault if any of its causes is.
    pub fn of_work(error: &(dyn Error + 'static)) -> Self {
        if let Some(error) = error.downcast_ref::<Self>() {
            return error.clone();
        }
        let message = chain(error);
        if let Some(StoreError::NoProject(_)) = error.downcast_ref::<StoreError>() {
            Self::BadRequest { message }
        } else if is_dependency(error) {
            Self::Dependency { message }
        } else {
            Self::Failed { message }
        }
    }
}

fn is_dependency(error: &(dyn Error + 'static)) -> bool {
    let away = |error: &(dyn Error + 'static)| {
        connect::is_unreachable(error)
            || error.downcast_ref::<StoreError>().is_some_and(StoreError::is_temporary)
            || matches!(
                error.downcast_ref::<SecretError>(),
                Some(SecretError::Unavailable { .. })
            )
    };
    std::iter::successors(Some(error), |&error| error.source()).any(away)
}
