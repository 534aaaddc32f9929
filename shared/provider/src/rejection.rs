//! Owns the reading of refusals: status, pause and message, as most HTTP APIs say them. Refuses to decide who is charged.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::Failure;

/// A provider's message is kept to this many characters.
const MESSAGE_CHARS: usize = 500;

/// No pause that a provider asks for is taken as longer; nobody waits for a date in the next century.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// How servers say that an input is longer than the model reads, in lower case:
/// OpenAI and vLLM "This model's maximum context length is 8192 tokens, however you requested …" and "maximum input
/// length is …", Ollama "the input length exceeds the context length" (ollama#14186), Gemini "The input token count
/// exceeds the maximum number of tokens allowed", Text Embeddings Inference "`inputs` must have less than 512 tokens",
/// llama.cpp's server "input (535 tokens) is too large to process", with status 500.
const TOO_LONG: [&str; 3] = ["must have less than", "too large to process", "input is too long"];
/// And in the words of others, one of each: "Input length 548 exceeds maximum allowed token size 512" (NVIDIA NIM), "The input
/// (600 tokens) is longer than the model's context length (512 tokens)." (SGLang), "input is larger than the max context
/// size" (llama.cpp's older servers), "decoding exceeds the available context size" (llama-box).
const LENGTHS: [&str; 5] = ["token", "context", "input length", "sequence length", "prompt length"];
/// Tokens, too, but of a budget.
const BUDGETS: [&str; 6] = [
    "per minute",
    "per second",
    "per day",
    "rate limit",
    "quota",
    "please wait",
];
const EXCESSES: [&str; 9] = [
    "exceed",
    "maximum",
    "longer than",
    "larger than",
    "greater than",
    "more than",
    "too long",
    "too large",
    "too many",
];

/// What a refusal's body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint {
    /// At most 500 characters; empty where the body has no message.
    pub message: String,
    /// The error's `code` and `type`.
    pub codes: Vec<String>,
}

impl Complaint {
    /// Reads `{"error":{"message","code","type"}}`, `{"error":"…"}`, `{"message":…}` and `{"detail":…}`; a body that
    /// is no JSON gives no message, as it may be anything, even what was sent.
    pub fn read(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        // Gemini's shape comes in an array at times.
        let value = value.get(0).unwrap_or(&value);
        let inner = value.get("error").filter(|error| error.is_object()).unwrap_or(value);
        let message = ["message", "error", "detail"]
            .iter()
            .find_map(|key| text(inner.get(key)?));
        let codes = ["code", "type", "status"]
            .iter()
            .filter_map(|key| text(inner.get(key)?))
            .collect();
        Self {
            message: shorten(&message.unwrap_or_default()),
            codes,
        }
    }

    /// Whether it says that an input is longer than the model reads.
    pub fn is_too_long(&self) -> bool {
        let said = self.message.to_ascii_lowercase();
        let has = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
        has(&TOO_LONG)
            || has(&LENGTHS) && has(&EXCESSES) && !has(&BUDGETS)
            || self.has_code(&["context_length_exceeded"])
    }

    pub fn has_code(&self, known: &[&str]) -> bool {
        self.codes.iter().any(|code| known.contains(&code.as_str()))
    }
}

/// The rule for statuses that all formats share. `complaint` becomes the message, with the status before it.
pub fn failure(status: u16, headers: &HeaderMap, complaint: &Complaint) -> Failure {
    let message = match complaint.message.as_str() {
        "" => format!("HTTP {status}"),
        said => format!("HTTP {status}: {said}"),
    };
    match status {
        429 => Failure::RateLimited {
            retry_after: retry_after(headers),
            message,
        },
        400 | 413 | 422 | 500 if complaint.is_too_long() => Failure::TooLong { message },
        400 | 413 | 422 => Failure::Rejected { message },
        408 | 409 | 425 | 500.. => Failure::Unavailable {
            // Its budgets aren't meant here: they stand in every answer of some.
            retry_after: stated(headers),
            message,
        },
        // Redirects are never followed: the key would go to whoever the answer names.
        300..400 => Failure::Misconfigured {
            message: format!("{message} (redirects are not followed)"),
        },
        _ => Failure::Misconfigured { message },
    }
}

/// How long a 429 wants us to wait: what is `stated`, or else the longest `x-ratelimit-reset-*` among the budgets that
/// are spent, or among all if none says that it is.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    if let Some(stated) = stated(headers) {
        return Some(stated);
    }
    let resets: Vec<(bool, Duration)> = headers
        .iter()
        .filter_map(|(name, value)| {
            let budget = name.as_str().strip_prefix("x-ratelimit-reset-")?;
            let wait = positive(clock(value.to_str().ok()?)?)?;
            let left = headers.get(format!("x-ratelimit-remaining-{budget}"));
            Some((left.is_some_and(|left| left == "0"), wait))
        })
        .collect();
    let spent = resets.iter().filter(|(spent, _)| *spent).map(|(_, wait)| *wait).max();
    spent.or_else(|| resets.iter().map(|(_, wait)| *wait).max())
}

/// `retry-after-ms`, `Retry-After` in seconds or as a date, or `RateLimit-Reset` of the IETF's draft.
/// Zero and less is no answer (Azure sends -1 and 0 there).
fn stated(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    text(&HeaderName::from_static("retry-after-ms"))
        .and_then(|ms| seconds(ms).map(|s| s / 1000.0))
        .or_else(|| text(&RETRY_AFTER).and_then(|value| seconds(value).or_else(|| until(value, text(&DATE)))))
        .and_then(positive)
        .or_else(|| {
            text(&HeaderName::from_static("ratelimit-reset"))
                .and_then(seconds)
                .and_then(positive)
        })
}

fn seconds(text: &str) -> Option<f64> {
    text.parse().ok()
}

fn positive(seconds: f64) -> Option<Duration> {
    if seconds <= 0.0 {
        return None;
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .map(|wait| wait.min(LONGEST_PAUSE))
}

/// Seconds from the answer's own `Date`, so that our clock's error doesn't count, to an HTTP date.
fn until(date: &str, answered: Option<&str>) -> Option<f64> {
    let date = moment(date)?;
    let now = answered.and_then(moment).unwrap_or_else(OffsetDateTime::now_utc);
    Some((date - now).as_seconds_f64())
}

/// In any form that HTTP knows, the obsolete ones included, or with another zone than GMT.
fn moment(date: &str) -> Option<OffsetDateTime> {
    match httpdate::parse_http_date(date) {
        Ok(date) => Some(date.into()),
        Err(_) => OffsetDateTime::parse(date, &Rfc2822).ok(),
    }
}

/// A span as protocol buffers write it in JSON: `59s`, `0.5s`.
pub fn span(text: &str) -> Option<Duration> {
    clock(text).and_then(positive)
}

/// Seconds in `1s`, `6m0s`, `1h30m`, `8.64s`, `20ms` or `2d`; a bare number is seconds.
fn clock(text: &str) -> Option<f64> {
    if let Some(bare) = seconds(text) {
        return Some(bare);
    }
    let mut left = text.trim();
    let mut total = 0.0;
    while !left.is_empty() {
        let digits = left.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = left.split_at(digits);
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(letters);
        let factor = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        left = rest;
    }
    Some(total)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        // FastAPI's: one entry a mistake. Its `input` is what was sent, and isn't taken.
        Value::Array(entries) => {
            let said: Vec<&str> = entries.iter().filter_map(|entry| entry.get("msg")?.as_str()).collect();
            (!said.is_empty()).then(|| said.join("; "))
        }
        _ => None,
    }
}

/// One line of at most 500 characters.
fn shorten(message: &str) -> String {
    message
        .chars()
        .take(MESSAGE_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Takes the key and what repeats an input out of a provider's message, before anyone logs or stores it.
pub fn redact(message: &str, key: Option<&str>, inputs: &[&str]) -> String {
    /// Shorter inputs are words that a message may have of its own: only between quotation marks are they an input.
    const TELLING_CHARS: usize = 12;
    let mut clean = message.to_owned();
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        clean = clean.replace(key, "[key]");
    }
    for input in inputs
        .iter()
        .map(|input| input.trim())
        .filter(|input| !input.is_empty())
    {
        // A quotation may be cut short, so its beginning is looked for, and what follows goes with it.
        let beginning: String = input.chars().take(2 * TELLING_CHARS).collect();
        if beginning.chars().count() < TELLING_CHARS {
            for (open, close) in QUOTATION_MARKS {
                clean = clean.replace(&format!("{open}{input}{close}"), &format!("{open}[input]{close}"));
            }
        } else if let Some(at) = clean.find(&beginning) {
            clean.truncate(at);
            clean.push_str("[input]");
        }
    }
    clean
}

const QUOTATION_MARKS: [(&str, &str); 6] = [("\"", "\""), ("'", "'"), ("`", "`"), ("“", "”"), ("‘", "’"), ("«", "»")];

#[cfg(test)]
mod tests;
