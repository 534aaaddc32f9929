//! Owns what of AWS was built into this program. Refuses to ask AWS anything.

use cronvec_secrets::Secrets;

#[cfg(feature = "aws")]
pub(crate) fn secrets() -> Secrets {
    Secrets::new(cronvec_aws::Account::shared())
}

#[cfg(not(feature = "aws"))]
pub(crate) fn secrets() -> Secrets {
    Secrets::without_aws()
}

/// What is said where a verb or an option needs what isn't there.
#[cfg(not(feature = "aws"))]
pub(crate) fn needed(by: &str) -> anyhow::Error {
    crate::exit::usage(format!(
        "{by} needs AWS, and this program was built without it: build it with the feature `aws`"
    ))
}
