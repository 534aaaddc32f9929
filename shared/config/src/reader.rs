//! Owns how one variable becomes a value, or a problem. Refuses to know which variables there are.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use url::Url;

use super::{Problem, Problems, SecretSource};
use cronvec_edges::near::is_near;

/// Reads variables and keeps what is wrong with them. A value that can't be used yields its default, so that reading
/// goes on and all problems are found in one go.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            problems: Vec::new(),
        }
    }

    /// The settings, unless anything was wrong.
    pub(super) fn finish<T>(self, settings: T) -> Result<T, Problems> {
        if self.problems.is_empty() {
            Ok(settings)
        } else {
            Err(Problems(self.problems))
        }
    }

    pub(super) fn problem(&mut self, variable: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(variable, message));
    }

    /// The value as it stands: a prefix may end in a space. An empty one counts as unset.
    pub(super) fn verbatim(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// The value without white space around it; unset if nothing is left.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.verbatim(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// A whole number within a range.
    pub(super) fn number<N>(&mut self, name: &str, default: N, range: RangeInclusive<N>) -> N
    where
        N: FromStr + PartialOrd + Display,
    {
        self.optional_number(name, range).unwrap_or(default)
    }

    /// A whole number within a range, if it is set.
    pub(super) fn optional_number<N>(&mut self, name: &str, range: RangeInclusive<N>) -> Option<N>
    where
        N: FromStr + PartialOrd + Display,
    {
        let text = self.text(name)?;
        match text.parse::<N>() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let (least, most) = (range.start(), range.end());
                self.problem(
                    name,
                    format!("is '{text}'; it is a whole number from {least} to {most}"),
                );
                None
            }
        }
    }

    /// `true` or `false`, also as `1`, `0`, `yes`, `no`, `on`, `off`.
    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        let Some(text) = self.text(name) else { return default };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                self.problem(name, format!("is '{text}'; it is true or false"));
                default
            }
        }
    }

    /// Bytes: a whole number, or one with a unit, `KB` or `MB` (decimal: 1 MB is 1,000,000).
    pub(super) fn bytes(&mut self, name: &str, default: usize, range: RangeInclusive<usize>) -> usize {
        let Some(text) = self.text(name) else { return default };
        let upper = text.to_ascii_uppercase();
        let (digits, unit) = match (upper.strip_suffix("KB"), upper.strip_suffix("MB")) {
            (Some(digits), _) => (digits, 1_000),
            (_, Some(digits)) => (digits, 1_000_000),
            _ => (upper.as_str(), 1),
        };
        match digits
            .trim_end()
            .parse::<usize>()
            .ok()
            .and_then(|count| count.checked_mul(unit))
        {
            Some(bytes) if range.contains(&bytes) => bytes,
            _ => {
                let (least, most) = (range.start(), range.end());
                let message =
                    format!("is '{text}'; it is bytes from {least} to {most}, or KB or MB (1 MB = 1,000,000)");
                self.problem(name, message);
                default
            }
        }
    }

    /// A secret as `NAME` or `NAME_ARN`.
    pub(super) fn secret(&mut self, name: &str) -> Option<SecretSource> {
        self.secret_named(name, &format!("{name}_ARN"))
    }

    /// A secret as `name` or, by reference, as `arn_name`.
    pub(super) fn secret_named(&mut self, name: &str, arn_name: &str) -> Option<SecretSource> {
        match (self.text(name), self.text(arn_name)) {
            (None, None) => None,
            (Some(value), None) => Some(SecretSource::Value(value)),
            (None, Some(arn)) if arn.starts_with("arn:") && arn.contains(":secretsmanager:") => {
                Some(SecretSource::Arn(arn))
            }
            (None, Some(_)) => {
                let form = "arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME";
                self.problem(
                    arn_name,
                    format!("is no ARN of a secret in AWS Secrets Manager; it looks like {form}"),
                );
                None
            }
            (Some(value), Some(_)) => {
                self.problem(arn_name, format!("and {name} are both set; unset one of them"));
                Some(SecretSource::Value(value))
            }
        }
    }

    /// Where a provider is: an address that paths are appended to. Plain http only where nobody listens in between.
    pub(super) fn base_url(&mut self, name: &str, default: &str) -> String {
        let Some(text) = self.text(name) else {
            return default.to_owned();
        };
        match check_base_url(&text) {
            Ok(()) => text.trim_end_matches('/').to_owned(),
            Err(message) => {
                self.problem(name, message);
                default.to_owned()
            }
        }
    }

    /// Where people reach the page.
    pub(super) fn public_url(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        match check_base_url(&text) {
            Ok(()) => Some(text.trim_end_matches('/').to_owned()),
            Err(message) => {
                self.problem(name, message);
                None
            }
        }
    }
}

/// The address isn't repeated in a message before it is known to hold no password.
pub fn check_base_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("is no address: {error}; it looks like https://HOST/PATH"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password; keys have variables of their own".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment; paths are appended to it".to_owned());
    }
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => Ok(()),
        ("http", Some(host)) if is_near(&host) => Ok(()),
        ("http", Some(host)) => Err(format!(
            "is plain http to {host}; outside of loopback and private addresses it must be https"
        )),
        _ => Err(format!("is '{text}'; it looks like https://HOST/PATH")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_loopback_and_private_addresses_only() {
        for url in [
            "http://localhost:11434",
            "http://127.0.0.1:9",
            "http://10.1.2.3/v1",
            "http://192.168.0.4",
            "http://[::1]:80",
            "http://[fd00::1]",
            "http://ollama:11434/",
            "http://host.docker.internal",
            "http://169.254.1.2:11434",
        ] {
            assert_eq!(check_base_url(url), Ok(()), "{url}");
        }
        for url in [
            "http://api.openai.com/v1",
            "http://8.8.8.8",
            "http://172.32.0.1",
            "http://[2001:db8::1]",
        ] {
            assert!(check_base_url(url).unwrap_err().contains("must be https"), "{url}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_repeated() {
        let message = check_base_url("https://me:hunter2@example.com").unwrap_err();
        assert!(!message.contains("hunter2"));
    }

    #[test]
    fn what_is_no_http_address_is_refused() {
        for url in [
            "example.com",
            "ftp://example.com",
            "https://example.com?x=1",
            "file:///etc/passwd",
        ] {
            assert!(check_base_url(url).is_err(), "{url}");
        }
    }
}
