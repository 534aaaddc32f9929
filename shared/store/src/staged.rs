//! Owns the records of a job that are too many for its row: NDJSON in pieces. Refuses to read what they say.

use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// A piece has at most this many bytes, unless one record is larger, and this many records.
pub const PIECE_BYTES: usize = 512 * 1024;
pub const PIECE_RECORDS: usize = 1000;
/// A piece of this size can be read by whoever fears the worst of it.
const SMALL: i32 = 1024 * 1024;

/// Some of a job's records, each with its line.
#[derive(Debug, Clone)]
pub struct Piece {
    pub number: i32,
    pub records: Vec<(i32, Vec<u8>)>,
}

/// Stages all of them, with these lines or beginning with line 1.
pub(super) async fn stage(
    transaction: &deadpool_postgres::Transaction<'_>,
    job_id: i64,
    records: &[&[u8]],
    lines: Option<&[i32]>,
) -> Result<(), StoreError> {
    let counted: Vec<i32>;
    let mut lines = match lines {
        Some(lines) => lines,
        None => {
            let last = i32::try_from(records.len())
                .map_err(|_| StoreError::Invalid("a job has at most 2,147,483,647 records".into()))?;
            counted = (1..=last).collect();
            &counted
        }
    };
    let mut rest = records;
    let mut piece = 0_i32;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest
            .iter()
            .take(PIECE_RECORDS)
            .take_while(|record| {
                bytes += record.len() + 1;
                bytes <= PIECE_BYTES
            })
            .count()
            .max(1);
        let (now, later) = rest.split_at(fitting);
        let (numbers, later_numbers) = lines.split_at(fitting);
        insert_piece(transaction, job_id, piece, numbers, now).await?;
        piece += 1;
        (rest, lines) = (later, later_numbers);
    }
    Ok(())
}

/// Each line's number is kept, so that a piece's lines are known without reading it.
async fn insert_piece(
    transaction: &deadpool_postgres::Transaction<'_>,
    job_id: i64,
    piece: i32,
    numbers: &[i32],
    records: &[&[u8]],
) -> Result<(), StoreError> {
    let body = join(records);
    transaction
        .execute_typed(
            "INSERT INTO cronvec.staged (job_id, piece, first_line, lines, body) VALUES ($1, $2, $3, $4, $5)",
            &[
                (&job_id, Type::INT8),
                (&piece, Type::INT4),
                (&numbers.first(), Type::INT4),
                (&numbers, Type::INT4_ARRAY),
                (&body, Type::BYTEA),
            ],
        )
        .await?;
    Ok(())
}

/// A record is one line: whatever line breaks its JSON has are white space between tokens.
pub(super) fn join(records: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let records = records.iter().map(AsRef::as_ref);
    let mut body = Vec::with_capacity(records.clone().map(|record| record.len() + 1).sum());
    for record in records {
        if record.is_empty() {
            // Kept as a line, so that those after it keep their numbers.
            body.push(b' ');
        }
        body.extend(record.iter().map(|&byte| if byte == b'\n' { b' ' } else { byte }));
        body.push(b'\n');
    }
    body
}

impl Store {
    /// The first piece from this number on.
    pub async fn staged_piece(&self, job_id: i64, from: i32) -> Result<Option<Piece>, StoreError> {
        let row = self
            .query_opt(
                "SELECT piece, first_line, lines, body FROM cronvec.staged
                 WHERE job_id = $1 AND piece >= $2 ORDER BY piece LIMIT 1",
                &[(&job_id, Type::INT8), (&from, Type::INT4)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (first, lines, body): (i32, Option<Vec<i32>>, &[u8]) = (row.get(1), row.get(2), row.get(3));
        let texts = body.split(|&byte| byte == b'\n').filter(|text| !text.is_empty());
        let records = match lines {
            Some(lines) => lines.into_iter().zip(texts.map(<[u8]>::to_vec)).collect(),
            None => (first..).zip(texts.map(<[u8]>::to_vec)).collect(),
        };
        Ok(Some(Piece {
            number: row.get(0),
            records,
        }))
    }
}

/// A line of a piece, known without reading what it says.
#[derive(Debug, Clone)]
pub struct Place {
    pub piece: i32,
    pub line: i32,
    /// Lines of the piece.
    pub lines: usize,
    /// What the line says, of a piece that harms nobody by its size.
    pub text: Option<Vec<u8>>,
}

impl Store {
    /// The line at this offset in the first piece from this number on.
    pub async fn staged_line(&self, job_id: i64, from: i32, offset: usize) -> Result<Option<Place>, StoreError> {
        let row = self
            .query_opt(
                "SELECT piece, lines, CASE WHEN octet_length(body) <= $3 THEN body END FROM cronvec.staged
                 WHERE job_id = $1 AND piece >= $2 ORDER BY piece LIMIT 1",
                &[(&job_id, Type::INT8), (&from, Type::INT4), (&SMALL, Type::INT4)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let piece: i32 = row.get(0);
        if let (Some(lines), body) = (row.get::<_, Option<Vec<i32>>>(1), row.get::<_, Option<&[u8]>>(2)) {
            let text = body.and_then(|body| body.split(|&byte| byte == b'\n').nth(offset));
            return Ok(lines.get(offset).map(|line| Place {
                piece,
                line: *line,
                lines: lines.len(),
                text: text.map(<[u8]>::to_vec),
            }));
        }
        // Staged before lines were kept.
        let piece = self.staged_piece(job_id, piece).await?;
        Ok(piece.and_then(|piece| {
            let (line, text) = piece.records.get(offset)?.clone();
            Some(Place {
                piece: piece.number,
                line,
                lines: piece.records.len(),
                text: Some(text),
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_over_several_lines_is_one_line() {
        assert_eq!(join(&[&b"{\n\"id\":1}"[..], b"{}"]), b"{ \"id\":1}\n{}\n");
    }
}
