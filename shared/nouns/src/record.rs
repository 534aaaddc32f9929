//! Owns what a record is and which ones are taken. Refuses to know files, HTTP and the database.

use std::hash::{Hash, Hasher};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The longest id, in characters.
pub const MAX_ID_CHARS: usize = 1000;
/// And in bytes: an entry of PostgreSQL's indexes has 2,704 at most.
const MAX_ID_BYTES: usize = 2000;

/// Of a rejected record's own text so many bytes are kept.
pub const RAW_KEPT: usize = 1024 * 1024;

/// The first 16 bytes of a text's SHA-256: enough that no two texts of a database share it by chance or by intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 16]);

impl ContentHash {
    pub fn of(text: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(first)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Half of it tells keys of a map apart as well as all of it, and each is hashed several times on its way.
impl Hash for ContentHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// A record that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub id: String,
    pub content: String,
    /// A JSON object, as text.
    pub metadata: String,
}

/// One that wasn't.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rejection {
    /// 1 for the first line or record.
    pub line: i32,
    pub id: Option<String>,
    pub reason: String,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    id: Option<&'a serde_json::value::RawValue>,
    content: Option<serde_json::Value>,
    #[serde(borrow)]
    metadata: Option<&'a serde_json::value::RawValue>,
}

/// Reads one record from JSON: `{"id":…,"content":…,"metadata":{…}?}`. An id may be a number.
pub fn parse(line: i32, json: &[u8], max_content_bytes: usize) -> Result<Record, Rejection> {
    let reject = |id: Option<&str>, reason: String| Rejection {
        line,
        id: id.map(shorten),
        reason,
    };
    let text = std::str::from_utf8(json).map_err(|_| reject(None, "not UTF-8".into()))?;
    if text.trim_start().starts_with('[') {
        return Err(reject(None, "not a JSON record: an array".into()));
    }
    let raw: Raw<'_> =
        serde_json::from_str(text).map_err(|error| reject(None, format!("not a JSON record: {error}")))?;
    let id = match raw.id.map_or("null", serde_json::value::RawValue::get) {
        "null" => return Err(reject(None, "no id".into())),
        id if id.starts_with('"') => {
            serde_json::from_str(id).map_err(|error| reject(None, format!("not a JSON record: {error}")))?
        }
        // As it is written: two numbers beyond a computer's precision are two ids.
        id if id.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => id.to_owned(),
        _ => return Err(reject(None, "the id is neither text nor a number".into())),
    };
    let content = match raw.content {
        Some(serde_json::Value::String(content)) => content,
        None | Some(serde_json::Value::Null) => return Err(reject(Some(&id), "no text".into())),
        Some(_) => return Err(reject(Some(&id), "the content is not text".into())),
    };
    let metadata = match raw.metadata.map(serde_json::value::RawValue::get) {
        None | Some("null") => "{}",
        Some(object) => object,
    };
    // Kept as it was written, so that no number changes; read, because jsonb takes less than JSON's grammar allows.
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(metadata).map_err(|error| {
        reject(
            Some(&id),
            format!("the metadata is not a JSON object that can be stored: {error}"),
        )
    })?;
    check(&id, &content, metadata, max_content_bytes).map_err(|reason| reject(Some(&id), reason))?;
    Ok(Record {
        id,
        content,
        metadata: metadata.to_owned(),
    })
}

/// What every way in asks of a record.
pub fn check(id: &str, content: &str, metadata: &str, max_content_bytes: usize) -> Result<(), String> {
    if id.is_empty() {
        return Err("no id".into());
    }
    if id.chars().count() > MAX_ID_CHARS {
        return Err(format!("the id is longer than {MAX_ID_CHARS} characters"));
    }
    if id.len() > MAX_ID_BYTES {
        return Err(format!("the id is longer than {MAX_ID_BYTES} bytes"));
    }
    if id.contains('\0') {
        return Err("a NUL byte in the id, which PostgreSQL can't store".into());
    }
    if content.trim().is_empty() {
        return Err("no text".into());
    }
    if content.len() > max_content_bytes {
        return Err(format!(
            "the text has {} bytes, MAX_CONTENT_BYTES allows {max_content_bytes}",
            content.len()
        ));
    }
    if content.contains('\0') {
        return Err("a NUL byte in the text, which PostgreSQL can't store".into());
    }
    // In JSON text a NUL stands escaped; an escaped backslash before it makes it harmless.
    if metadata.contains("\\u0000") && has_escaped_nul(metadata) {
        return Err("a NUL byte in the metadata, which PostgreSQL can't store".into());
    }
    Ok(())
}

fn has_escaped_nul(json: &str) -> bool {
    let mut rest = json.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        if rest[at..].starts_with(b"\\u0000") {
            return true;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

fn shorten(id: &str) -> String {
    id.chars().filter(|&c| c != '\0').take(MAX_ID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(json: &str) -> String {
        parse(7, json.as_bytes(), 100).expect_err("rejected").reason
    }

    #[test]
    fn a_good_record_keeps_its_parts() {
        let record = parse(1, br#"{"id":"a","content":"text","metadata":{"k":[1]}}"#, 100).unwrap();
        assert_eq!(
            record,
            Record {
                id: "a".into(),
                content: "text".into(),
                metadata: r#"{"k":[1]}"#.into()
            }
        );
    }

    #[test]
    fn a_number_is_an_id_as_text() {
        let id = |json: &str| parse(1, json.as_bytes(), 100).unwrap().id;
        assert_eq!(id(r#"{"id":42,"content":"text"}"#), "42");
        let long = "123456789012345678901234567890";
        assert_eq!(id(&format!(r#"{{"id": {long} ,"content":"text"}}"#)), long);
    }

    #[test]
    fn each_bad_record_says_what_is_wrong_with_it() {
        assert_eq!(reason(r#"{"content":"text"}"#), "no id");
        assert_eq!(reason(r#"{"id":"","content":"text"}"#), "no id");
        assert_eq!(reason(r#"{"id":"a"}"#), "no text");
        assert_eq!(reason(r#"{"id":"a","content":" \n"}"#), "no text");
        assert_eq!(reason(r#"{"id":"a","content":5}"#), "the content is not text");
        assert!(reason(r#"{"id":"a","content":"x\u0000y"}"#).contains("NUL byte in the text"));
        assert!(reason(r#"{"id":"a","content":"x","metadata":{"k":"\u0000"}}"#).contains("NUL byte in the metadata"));
        assert!(reason(r#"{"id":"a","content":"x","metadata":[1]}"#).contains("not a JSON object"));
        assert!(reason(r#"{"id":"a","content":"x","metadata":{"k":1e400}}"#).contains("not a JSON object"));
        assert!(reason(r#"{"id":"a","content":"x","metadata":{"k":"\ud800"}}"#).contains("not a JSON object"));
        assert!(reason(&format!(r#"{{"id":"a","content":"{}"}}"#, "x".repeat(101))).contains("MAX_CONTENT_BYTES"));
        assert!(reason("{").starts_with("not a JSON record"));
        assert!(reason(r#"["a","text",{}]"#).starts_with("not a JSON record"));
        assert!(reason(r#"{"id":"\ud800","content":"x"}"#).starts_with("not a JSON record"));
        assert!(reason(r#"{"id":true,"content":"x"}"#).contains("neither text nor a number"));
        assert!(reason(&format!(r#"{{"id":"{}","content":"x"}}"#, "i".repeat(1001))).contains("longer than 1000"));
        assert!(
            reason(&format!(r#"{{"id":"{}","content":"x"}}"#, "字".repeat(1000))).contains("longer than 2000 bytes")
        );
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_no_nul() {
        assert!(parse(1, br#"{"id":"a","content":"x","metadata":{"k":"\\u0000"}}"#, 100).is_ok());
    }

    #[test]
    fn the_hash_is_that_of_the_database() {
        // SELECT cronvec.content_hash('abc')
        assert_eq!(ContentHash::of("abc").0[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
