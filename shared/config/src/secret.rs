//! Owns what a secret is and how it is shown: never. Refuses to fetch one, see `secrets`.

use std::fmt;

use url::Url;

pub(super) const NOT_SET: &str = "(not set)";
const MASK: &str = "********";

/// A secret's value. Neither `Debug` nor anything else shows it; whoever needs it says so with [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value; white space around it, such as a file's last newline, isn't part of it.
    pub fn new(value: &str) -> Self {
        Self(value.trim().to_owned())
    }

    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A value that may be given as itself or as `<NAME>_ARN`. Its `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    Value(String),
    /// The ARN of a secret in AWS Secrets Manager.
    Arn(String),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::Arn(arn) => f.debug_tuple("Arn").field(arn).finish(),
        }
    }
}

/// A line of `Settings::describe`: an ARN is shown, a value is only said to be set.
pub(super) fn row(name: &'static str, arn_name: &'static str, source: Option<&SecretSource>) -> (&'static str, String) {
    match source {
        None => (name, NOT_SET.to_owned()),
        Some(SecretSource::Value(_)) => (name, MASK.to_owned()),
        Some(SecretSource::Arn(arn)) => (arn_name, arn.clone()),
    }
}

/// Where the database is helps whoever reads the settings; how to get in doesn't.
pub(super) fn row_of_database(source: Option<&SecretSource>) -> (&'static str, String) {
    let Some(SecretSource::Value(url)) = source else {
        return row("DATABASE_URL", "DATABASE_SECRET_ARN", source);
    };
    // The query may hold secrets as well (`password=`), so only what stands before it is shown.
    let shown = Url::parse(url)
        .ok()
        .filter(|url| url.scheme().starts_with("postgres"))
        .map(|mut url| {
            url.set_query(None);
            url.set_fragment(None);
            if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
                return MASK.to_owned();
            }
            url.to_string()
        });
    ("DATABASE_URL", shown.unwrap_or_else(|| MASK.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_by_debug() {
        let shown = format!(
            "{:?} {:?}",
            Secret::new("hunter2"),
            SecretSource::Value("hunter2".into())
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_last_newline_is_no_part_of_a_secret() {
        assert_eq!(Secret::new("hunter2\n").expose(), "hunter2");
    }

    #[test]
    fn a_database_url_is_shown_without_its_password_and_query() {
        let source = SecretSource::Value("postgresql://app:hunter2@db.example.com:6432/shop?password=hunter3".into());
        assert_eq!(
            row_of_database(Some(&source)).1,
            "postgresql://app:********@db.example.com:6432/shop"
        );
    }

    #[test]
    fn a_database_url_that_cannot_be_parsed_is_shown_as_nothing() {
        let source = SecretSource::Value("postgresql://app:hunter2@/shop".into());
        assert_eq!(row_of_database(Some(&source)).1, MASK);
    }
}
