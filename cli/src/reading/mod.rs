//! Owns the reading of files of records: NDJSON, JSON and CSV become pieces of NDJSON with their line numbers.
//! Refuses to judge records: what isn't one is passed on, and ingestion rejects it with its line.

mod csv_rows;
mod json;
mod ndjson;
mod piece;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use tokio::sync::mpsc;

pub use piece::Piece;
use piece::Sink;

/// Pieces as they are read; an error is the last thing that comes.
pub type Pieces = mpsc::Receiver<Result<Piece>>;

/// Read ahead by so many pieces.
const READ_AHEAD: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An object a line.
    Ndjson,
    /// An array of objects, or objects one after the other.
    Json,
    /// A header line, then a record a row.
    Csv,
}

/// Which fields are a record's id and text, where they have other names than `id` and `content`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub id: Option<String>,
    pub text: Option<String>,
}

impl Fields {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or("id")
    }

    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("content")
    }

    fn is_plain(&self) -> bool {
        self.id() == "id" && self.text() == "content"
    }
}

/// Reads a file, or standard input for `-`, on a thread of its own.
pub fn open(path: &Path, format: Option<Format>, fields: Fields) -> Result<Pieces> {
    let (name, source): (_, Box<dyn Read + Send>) = if path == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin()))
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        (path.display().to_string(), Box::new(file))
    };
    let format = format.or_else(|| by_ending(path));
    Ok(spawn(name, source, format, fields))
}

/// Reads what is in memory.
pub fn of_text(name: &str, text: String, format: Format) -> Pieces {
    spawn(
        name.to_owned(),
        Box::new(io::Cursor::new(text)),
        Some(format),
        Fields::default(),
    )
}

fn spawn(name: String, source: Box<dyn Read + Send>, format: Option<Format>, fields: Fields) -> Pieces {
    let (sender, pieces) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut sink = Sink::new(sender.clone());
        let read =
            read(BufReader::with_capacity(1 << 16, source), format, &fields, &mut sink).and_then(|()| sink.flush());
        if let Err(error) = read {
            // Nobody listens any more: then nobody misses the error either.
            let _ = sender.blocking_send(Err(error.context(format!("cannot read {name}"))));
        }
    });
    pieces
}

fn read(mut source: impl BufRead, format: Option<Format>, fields: &Fields, sink: &mut Sink) -> Result<()> {
    skip_mark(&mut source)?;
    let format = match format {
        Some(format) => format,
        None => by_looks(&mut source)?,
    };
    match format {
        Format::Ndjson => ndjson::read(source, fields, sink),
        Format::Json => json::read(source, fields, sink),
        Format::Csv => csv_rows::read(source, fields, sink),
    }
}

/// A byte order mark, as some spreadsheets write it.
fn skip_mark(source: &mut impl BufRead) -> Result<()> {
    if source.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        source.consume(3);
    }
    Ok(())
}

fn by_ending(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_lowercase().as_str() {
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

fn by_looks(source: &mut impl BufRead) -> Result<Format> {
    loop {
        let seen = source.fill_buf()?;
        let Some(first) = seen.first() else {
            return Ok(Format::Ndjson);
        };
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => source.consume(1),
            b'[' => return Ok(Format::Json),
            b'{' => return Ok(Format::Ndjson),
            _ => return Ok(Format::Csv),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(text: &'static str, format: Option<Format>, fields: Fields) -> Result<Vec<(i32, String)>> {
        let mut pieces = spawn("a test".to_owned(), Box::new(text.as_bytes()), format, fields);
        let mut lines = Vec::new();
        while let Some(piece) = pieces.recv().await {
            let piece = piece?;
            let body = String::from_utf8(piece.body)?;
            lines.extend(piece.lines.into_iter().zip(body.lines().map(str::to_owned)));
        }
        Ok(lines)
    }

    fn record(line: i32, json: &str) -> (i32, String) {
        (line, json.to_owned())
    }

    #[tokio::test]
    async fn blank_lines_are_skipped_and_the_others_keep_their_numbers() {
        let lines = lines_of(
            "\u{feff}{\"id\":\"a\"}\n\n  \nnonsense\r\n{\"id\":\"b\"}",
            None,
            Fields::default(),
        )
        .await;
        let expected = [
            record(1, r#"{"id":"a"}"#),
            record(4, "nonsense"),
            record(5, r#"{"id":"b"}"#),
        ];
        assert_eq!(lines.unwrap(), expected);
    }

    #[tokio::test]
    async fn an_array_over_several_lines_becomes_a_line_a_record() {
        let text = "[\n {\"id\": \"a\",\n  \"content\": \"x\\ny\"},\n 7,\n {\"id\":\"b\"}]";
        let expected = [
            record(1, r#"{"id": "a",   "content": "x\ny"}"#),
            record(2, "7"),
            record(3, r#"{"id":"b"}"#),
        ];
        assert_eq!(lines_of(text, None, Fields::default()).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_cut_off_array_is_an_error() {
        let error = lines_of("[{\"id\":\"a\"},", None, Fields::default()).await.unwrap_err();
        assert!(format!("{error:#}").contains("cannot read a test"), "{error:#}");
    }

    #[tokio::test]
    async fn the_other_columns_of_a_table_become_metadata() {
        let text = "id,body,topic\na,\"two\nlines\",music\nb,short,\n";
        let fields = Fields {
            id: None,
            text: Some("body".to_owned()),
        };
        let expected = [
            record(2, r#"{"id":"a","content":"two\nlines","metadata":{"topic":"music"}}"#),
            record(4, r#"{"id":"b","content":"short","metadata":{"topic":""}}"#),
        ];
        assert_eq!(lines_of(text, None, fields).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn rows_that_end_as_on_windows_have_the_same_numbers() {
        let text = "id,content\r\na,\"two\r\nlines\"\r\nb,short\r\n";
        let expected = [
            record(2, r#"{"id":"a","content":"two\r\nlines","metadata":{}}"#),
            record(4, r#"{"id":"b","content":"short","metadata":{}}"#),
        ];
        assert_eq!(lines_of(text, None, Fields::default()).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_row_that_does_not_fit_its_header_is_an_error_with_its_line() {
        let error = lines_of("id,content\na,b\nc,d,e\n", None, Fields::default())
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains("line: 3"), "{error:#}");
    }

    #[tokio::test]
    async fn fields_of_other_names_are_moved_and_the_rest_is_metadata() {
        let fields = Fields {
            id: Some("key".to_owned()),
            text: Some("body".to_owned()),
        };
        let lines = lines_of("{\"key\":7,\"body\":\"x\",\"topic\":\"music\"}\n", None, fields).await;
        assert_eq!(
            lines.unwrap(),
            [record(1, r#"{"id":"7","content":"x","metadata":{"topic":"music"}}"#)]
        );
    }
}
