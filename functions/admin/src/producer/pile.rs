//! The records of a body, whatever it is written in: one JSON text each, with its line.

use axum::body::Bytes;
use cronvec_nouns::record::Rejection;
use cronvec_reading::{self as reading, Fields, Format, ReadError, Rules, Stopped, Taker, Unreadable};

use crate::Refusal;
use crate::request::Kind;

/// Records in one body. Large files come as several.
pub const MOST_RECORDS: usize = 10_000;
/// What a compressed body may become.
const INFLATED: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Pile {
    pub lines: Vec<i32>,
    pub records: Vec<Vec<u8>>,
    /// Lines that no record can be made of.
    pub rejected: Vec<Rejection>,
    bytes: usize,
    most_bytes: usize,
}

const TOO_MANY: &str = "too many";
const TOO_LARGE: &str = "too large";

impl Pile {
    /// Reads CSV or NDJSON, compressed or not.
    pub async fn read(body: Bytes, kind: Kind, max_content_bytes: usize) -> Result<Self, Refusal> {
        let rules = Rules {
            format: Some(match kind {
                Kind::Csv => Format::Csv { delimiter: b',' },
                Kind::Json | Kind::Ndjson => Format::Ndjson,
            }),
            fields: Fields::default(),
            max_content_bytes,
        };
        let mut pile = Self {
            most_bytes: body.len().saturating_mul(INFLATED).saturating_add(max_content_bytes),
            ..Self::default()
        };
        // Reading is work for a processor: other requests' thread is left alone.
        let read = tokio::task::spawn_blocking(move || {
            let read = reading::read(&body[..], &rules, &mut pile);
            (pile, read)
        });
        let (pile, read) = read.await.map_err(|error| Refusal::internal(&error))?;
        match read {
            Ok(_) => Ok(pile),
            Err(ReadError::Stopped(Stopped(why))) if why == TOO_LARGE => Err(Refusal::too_large(
                "the body becomes too large when it is read; send several",
            )),
            Err(ReadError::Stopped(_)) => Err(Self::too_many()),
            Err(error) => Err(Refusal::bad_request(format!("the body: {error}"))),
        }
    }

    /// Records that were read already, in their order.
    pub fn of(records: impl Iterator<Item = Vec<u8>>) -> Self {
        let records: Vec<Vec<u8>> = records.collect();
        Self {
            lines: (1..).take(records.len()).collect(),
            records,
            ..Self::default()
        }
    }

    pub fn too_many() -> Refusal {
        Refusal::field(
            "records",
            format_args!("a body has at most {MOST_RECORDS}; send several"),
        )
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.bytes += bytes;
        if self.records.len() + self.rejected.len() >= MOST_RECORDS {
            return Err(Stopped(TOO_MANY.to_owned()));
        }
        if self.bytes > self.most_bytes {
            return Err(Stopped(TOO_LARGE.to_owned()));
        }
        Ok(())
    }
}

impl Taker for Pile {
    fn record(&mut self, line: u64, json: &[u8]) -> Result<(), Stopped> {
        self.make_room(json.len())?;
        self.lines
            .push(i32::try_from(line).map_err(|_| Stopped(TOO_MANY.to_owned()))?);
        self.records.push(json.to_vec());
        Ok(())
    }

    fn unreadable(&mut self, unreadable: Unreadable) -> Result<(), Stopped> {
        self.make_room(unreadable.raw.len())?;
        self.rejected.push(Rejection {
            line: i32::try_from(unreadable.line).unwrap_or(i32::MAX),
            id: None,
            reason: unreadable.reason,
        });
        Ok(())
    }
}
