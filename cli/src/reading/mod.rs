//! Owns the files that are handed in: they are read on a thread of their own and come as pieces of NDJSON with their line
//! numbers. Refuses to judge records: what isn't one is passed on, and ingestion rejects it with its line.

mod piece;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use cronvec_reading::{self as reading, ReadError, Rules};
use tokio::sync::mpsc;

pub use piece::Piece;
use piece::Pile;

use crate::exit::usage;

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

/// What a file is, if that was said or its name says it. A delimiter alone says CSV.
pub(crate) fn format(path: &Path, format: Option<Format>, delimiter: Option<u8>) -> Option<reading::Format> {
    let name = path.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let by_ending = || match ending {
        _ if delimiter.is_some() => Some(Format::Csv),
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        "json" => Some(Format::Json),
        "csv" | "tsv" => Some(Format::Csv),
        _ => None,
    };
    Some(match format.or_else(by_ending)? {
        Format::Ndjson => reading::Format::Ndjson,
        Format::Json => reading::Format::Json,
        Format::Csv => reading::Format::Csv {
            delimiter: delimiter.unwrap_or(if ending == "tsv" { b'\t' } else { b',' }),
        },
    })
}

/// Reads a file, or standard input for `-`, on a thread of its own.
pub fn open(path: &Path, rules: Rules) -> Result<Pieces> {
    let (name, source): (_, Box<dyn Read + Send>) = if path == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin()))
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        (path.display().to_string(), Box::new(file))
    };
    Ok(spawn(name, source, rules))
}

/// Reads NDJSON that is in memory.
pub fn of_text(name: &str, text: String, max_content_bytes: usize) -> Pieces {
    let rules = Rules {
        format: Some(reading::Format::Ndjson),
        fields: reading::Fields::default(),
        max_content_bytes,
    };
    spawn(name.to_owned(), Box::new(io::Cursor::new(text)), rules)
}

fn spawn(name: String, source: Box<dyn Read + Send>, rules: Rules) -> Pieces {
    let (sender, pieces) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut pile = Pile::new(sender.clone());
        let read = reading::read(source, &rules, &mut pile);
        // What came before an error is handed in.
        let flushed = pile.flush();
        let error = match (read, flushed) {
            (Ok(_), Ok(())) => return,
            (Err(ReadError::Columns(wrong)), _) => usage(wrong),
            (Err(error), _) => error.into(),
            (_, Err(error)) => error.into(),
        };
        // Nobody listens any more: then nobody misses the error either.
        let _ = sender.blocking_send(Err(error.context(format!("cannot read {name}"))));
    });
    pieces
}

#[cfg(test)]
mod tests {
    use cronvec_reading::Fields;

    use super::*;

    async fn lines_of(text: &'static str, format: Option<Format>, fields: Fields) -> Result<Vec<(i32, String)>> {
        let rules = Rules {
            format: self::format(Path::new("-"), format, None),
            fields,
            max_content_bytes: 1_000,
        };
        let mut pieces = spawn("a test".to_owned(), Box::new(text.as_bytes()), rules);
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

    #[test]
    fn a_name_says_what_a_file_is_also_behind_gz() {
        let named = |name: &str| format(Path::new(name), None, None);
        let csv = |delimiter| Some(reading::Format::Csv { delimiter });
        assert_eq!(named("a.CSV.gz"), csv(b','));
        assert_eq!(named("a.tsv"), csv(b'\t'));
        assert_eq!(named("a.jsonl.gz"), Some(reading::Format::Ndjson));
        assert_eq!(named("folder.json/records"), None);
        assert_eq!(format(Path::new("-"), None, Some(b';')), csv(b';'));
        assert_eq!(
            format(Path::new("a.csv"), Some(Format::Json), None),
            Some(reading::Format::Json)
        );
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
            texts: vec!["body".to_owned()],
            ..Fields::default()
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
    async fn a_row_that_does_not_fit_its_header_comes_with_its_line_and_the_next_is_read() {
        let rules = Rules {
            format: None,
            fields: Fields::default(),
            max_content_bytes: 1_000,
        };
        let text = "id,content\na,b\nc,d,e\nf,g\n";
        let mut pieces = spawn("a test".to_owned(), Box::new(text.as_bytes()), rules);
        let piece = pieces.recv().await.unwrap().unwrap();
        assert_eq!(piece.lines, [2, 4]);
        assert_eq!(piece.unreadable[0].line, 3);
        assert!(pieces.recv().await.is_none());
    }

    #[tokio::test]
    async fn fields_of_other_names_are_moved_and_the_rest_is_metadata() {
        let fields = Fields {
            id: Some("key".to_owned()),
            texts: vec!["body".to_owned()],
            metadata: Vec::new(),
        };
        let lines = lines_of("{\"key\":7,\"body\":\"x\",\"topic\":\"music\"}\n", None, fields).await;
        assert_eq!(
            lines.unwrap(),
            [record(1, r#"{"id":"7","content":"x","metadata":{"topic":"music"}}"#)]
        );
    }
}
