//! How a request is read: bodies, queries and paths, each refused in the one form of errors and by its field's name.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use crate::{Admin, Refusal};

/// Of a body that is no record.
pub const SMALL_BODY: usize = 256 * 1024;

/// What a body is, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    Csv,
    Ndjson,
}

impl Kind {
    pub fn of(request: &Request) -> Result<Self, Refusal> {
        let stated = request.headers().get(header::CONTENT_TYPE);
        let stated = stated.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Ok(Self::Json),
            "text/csv" => Ok(Self::Csv),
            "application/x-ndjson" | "application/ndjson" => Ok(Self::Ndjson),
            _ => Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body's Content-Type isn't one that is read here",
            )),
        }
    }
}

/// All of a body, of so many bytes at most.
pub async fn bytes(request: Request, most: usize) -> Result<Bytes, Refusal> {
    if length(&request).is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    let body = request.into_body();
    let limited = Request::new(axum::body::Body::new(body));
    let limited = with_limit(limited, most);
    Bytes::from_request(limited, &())
        .await
        .map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(most),
            _ => Refusal::bad_request("the body breaks off"),
        })
}

/// What it says of its own length.
pub fn length(request: &Request) -> Option<u64> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    length.and_then(|value| value.to_str().ok()?.parse().ok())
}

pub fn too_large(most: usize) -> Refusal {
    Refusal::too_large(format!("the body is larger than {most} bytes"))
}

fn with_limit(mut request: Request, most: usize) -> Request {
    axum::extract::DefaultBodyLimit::max(most).apply(&mut request);
    request
}

/// JSON of this type; a mistake names its field. The reader itself refuses what is nested deeper than 127 levels.
pub fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match path.as_str() {
            "." | "" | "?" => Refusal::bad_request(format!("the body: {error}")),
            field => Refusal::field(field, &error),
        }
    })?;
    reader
        .end()
        .map_err(|error| Refusal::bad_request(format!("the body: {error}")))?;
    Ok(value)
}

/// A small JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Admin> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Admin) -> Result<Self, Refusal> {
        if Kind::of(&request)? != Kind::Json {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body is application/json",
            ));
        }
        let body = bytes(request, SMALL_BODY).await?;
        json(&body).map(Self)
    }
}

/// What the query says.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Admin> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Admin) -> Result<Self, Refusal> {
        params(parts.uri.query()).map(Self)
    }
}

pub fn params<T: DeserializeOwned>(query: Option<&str>) -> Result<T, Refusal> {
    let pairs = serde_urlencoded::Deserializer::new(parse(query.unwrap_or_default()));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." | "" | "?" => Refusal::bad_request(format!("the query: {}", error.inner())),
            field => Refusal::field(field, error.inner()),
        }
    })
}

fn parse(query: &str) -> url::form_urlencoded::Parse<'_> {
    url::form_urlencoded::parse(query.as_bytes())
}

/// What the path says.
pub struct At<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Admin> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Refusal> {
        let Path(value) = Path::<T>::from_request_parts(parts, admin)
            .await
            .map_err(|rejection| Refusal::bad_request(format!("the path: {}", rejection.body_text())))?;
        Ok(Self(value))
    }
}

/// A page's size, in its range.
pub fn page_size(limit: Option<i64>, default: i64, most: i64) -> Result<i64, Refusal> {
    match limit.unwrap_or(default) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(Refusal::field("limit", format_args!("it is a number from 1 to {most}"))),
    }
}

/// Of what was asked for with one more than the page has: whether there was one more. It is taken away.
pub fn is_more<T>(found: &mut Vec<T>, limit: i64) -> bool {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_more = found.len() > wanted;
    found.truncate(wanted);
    is_more
}

/// A job's, token's or other number, as text.
pub fn number<N: std::str::FromStr>(field: &str, text: &str) -> Result<N, Refusal> {
    // Not what else a parser takes, such as a sign.
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse().ok().filter(|_| is_plain);
    parsed.ok_or_else(|| Refusal::field(field, "it is a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_nested_too_deep_is_refused() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(json::<serde_json::Value>(nested(127).as_bytes()).is_ok());
        assert!(json::<serde_json::Value>(nested(100_000).as_bytes()).is_err());
    }
}
