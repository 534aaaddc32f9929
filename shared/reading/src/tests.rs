use std::io::Write;

use super::*;

/// Lines as they were taken: JSON, or the reason why not.
#[derive(Debug, Default)]
struct Taken {
    records: Vec<(u64, String)>,
    unreadable: Vec<Unreadable>,
}

impl Taker for Taken {
    fn record(&mut self, line: u64, json: &[u8]) -> Result<(), Stopped> {
        assert!(!json.contains(&b'\n'), "a record is a line");
        let json = String::from_utf8_lossy(json).into_owned();
        self.records.push((line, json));
        Ok(())
    }

    fn unreadable(&mut self, unreadable: Unreadable) -> Result<(), Stopped> {
        self.unreadable.push(unreadable);
        Ok(())
    }
}

impl Taken {
    fn ids(&self) -> Vec<(u64, String)> {
        let id = |json: &str| {
            serde_json::from_str::<serde_json::Value>(json).unwrap()["id"]
                .as_str()
                .map(str::to_owned)
        };
        self.records
            .iter()
            .map(|(line, json)| (*line, id(json).unwrap_or_default()))
            .collect()
    }

    fn reasons(&self) -> Vec<(u64, &str)> {
        self.unreadable
            .iter()
            .map(|row| (row.line, row.reason.as_str()))
            .collect()
    }
}

fn rules(format: Option<Format>, fields: Fields) -> Rules {
    Rules {
        format,
        fields,
        max_content_bytes: 1000,
    }
}

fn taken(source: impl Read, rules: &Rules) -> (Taken, Result<u64, ReadError>) {
    let mut taken = Taken::default();
    let read = read(source, rules, &mut taken);
    (taken, read)
}

fn plain(text: &str) -> Taken {
    let (taken, read) = taken(text.as_bytes(), &rules(None, Fields::default()));
    read.unwrap();
    taken
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn ids(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(line, id)| (*line, (*id).to_owned())).collect()
}

#[test]
fn a_row_of_another_number_of_columns_is_set_aside_with_its_line_and_the_rest_goes_on() {
    let taken = plain("id,content\na,one\nb,two,three\nc\n\"d\nd\",\"x\ny\",z\ne,four\n");
    assert_eq!(taken.ids(), ids(&[(2, "a"), (8, "e")]));
    let columns = |n| format!("{n} columns, where the header has 2");
    assert_eq!(
        taken.reasons(),
        [(3, columns(3).as_str()), (4, &columns(1)), (5, &columns(3))]
    );
    assert_eq!(taken.unreadable[2].raw, b"\"d\nd\",\"x\ny\",z");
}

#[test]
fn a_header_that_names_two_columns_alike_or_has_another_delimiter_is_refused_with_what_to_do() {
    let refused = |text: &str, fields: Fields| {
        let (_, read) = taken(text.as_bytes(), &rules(None, fields));
        read.unwrap_err().to_string()
    };
    for (text, name) in [
        ("id,content,tag,tag\n1,text,red,blue\n", "tag"),
        ("id,content,content\n1,one,two\n", "content"),
        ("id,content,id\n1,one,2\n", "id"),
    ] {
        let told = refused(text, Fields::default());
        assert!(told.contains(&format!("named '{name}'")), "{told}");
    }
    // Those that aren't wanted don't matter.
    let only = Fields {
        metadata: vec!["kind".to_owned()],
        ..Fields::default()
    };
    let (taken, read) = taken(
        "id,content,tag,tag,kind\n1,text,red,blue,k\n".as_bytes(),
        &rules(None, only),
    );
    read.unwrap();
    assert_eq!(taken.ids(), ids(&[(2, "1")]));
    for (text, delimiter) in [
        ("id;content\n1;text\n", "--delimiter ';'"),
        ("id\tcontent\n1\ttext\n", "--delimiter tab"),
    ] {
        let told = refused(text, Fields::default());
        assert!(told.ends_with(delimiter), "{told}");
    }
}

#[test]
fn a_quote_that_never_closes_costs_its_own_line() {
    let taken = plain("id,content\na,\"open\nb,two\nc,three\n");
    assert_eq!(taken.ids(), ids(&[(3, "b"), (4, "c")]));
    assert_eq!(taken.reasons(), [(2, "a quote is opened that never closes")]);
    assert_eq!(taken.unreadable[0].raw, b"a,\"open");

    // The next quote would close it.
    let taken = plain("id,content\na,\"open\n\"b\",\"two\"\n\"c\",\"one\"two\n\"d\",\"do \"\"it\"\"\"\n");
    assert_eq!(taken.ids(), ids(&[(3, "b"), (5, "d")]));
    let reason = "text follows upon a closing quote";
    assert_eq!(taken.reasons(), [(2, reason), (4, reason)]);
    assert!(taken.records[1].1.contains(r#"do \"it\""#), "{taken:?}");
}

#[test]
fn a_line_that_is_too_long_is_set_aside_in_bounded_memory() {
    let long = "x".repeat(3 * BESIDES);
    let json = format!("{{\"id\":\"a\"}}\n{{\"id\":\"long\",\"content\":\"{long}\"}}\n{{\"id\":\"b\"}}\n");
    let csv = format!("id,content\na,\nlong,{long}\n\"longer\",\"\n{long}\n\"\nb,\n");
    let array = format!("[{{\"id\":\"a\"}},{{\"id\":\"long\",\"content\":\"{long}\"}},{{\"id\":\"b\"}}]");
    for (text, lines) in [(json, vec![2]), (csv, vec![3, 4, 5, 6]), (array, vec![2])] {
        let taken = plain(&text);
        assert_eq!(
            taken.ids().iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(taken.reasons().iter().map(|(line, _)| *line).collect::<Vec<_>>(), lines);
        assert!(
            taken.reasons().iter().any(|(_, reason)| reason.contains("longer than")),
            "{:?}",
            taken.reasons()
        );
        assert!(taken.unreadable.iter().all(|row| row.raw.len() <= RAW_KEPT));
    }
}

#[test]
fn gzipped_text_is_known_by_its_first_bytes_and_may_have_several_members() {
    let mut bytes = gzipped("\u{feff}id,content\na,\"one\n");
    bytes.extend(gzipped("two\"\nb,three\n"));
    let (taken, read) = taken(&bytes[..], &rules(None, Fields::default()));
    read.unwrap();
    assert_eq!(taken.ids(), ids(&[(2, "a"), (4, "b")]));
}

#[test]
fn of_what_is_cut_off_all_whole_records_are_taken_and_the_cut_one_is_set_aside() {
    use std::fmt::Write;
    let many = |line: &dyn Fn(u32) -> String| {
        (0..2000_u32).fold(String::new(), |mut all, n| {
            // Not to be compressed away.
            let salt = n.wrapping_mul(2_654_435_761) ^ 0x9e37_79b9;
            write!(all, "{}", line(n).replace('~', &format!("{salt:x}"))).unwrap();
            all
        })
    };
    let texts = [
        many(&|n| format!("{{\"id\":\"r{n}\",\"content\":\"~\"}}\n")),
        format!("id,content\n{}", many(&|n| format!("r{n},\"~\"\n"))),
        format!("[{}]", many(&|n| format!("{{\"id\":\"r{n}\",\"content\":\"~\"}},"))),
    ];
    for text in texts {
        let whole = gzipped(&text);
        for cut in [whole.len() / 3, whole.len() / 2, whole.len() - 9] {
            let (taken, read) = taken(&whole[..cut], &rules(None, Fields::default()));
            assert!(read.is_err(), "{cut}");
            let count = taken.records.len();
            let expected: Vec<String> = (0..count).map(|n| format!("r{n}")).collect();
            assert_eq!(taken.ids().into_iter().map(|(_, id)| id).collect::<Vec<_>>(), expected);
            assert!(count > 200, "{count} of {cut}");
            if count < 2000 {
                assert_eq!(taken.unreadable.len(), 1, "{:?}", taken.unreadable);
                assert!(
                    taken.reasons()[0].1.contains("the file breaks off here"),
                    "{:?}",
                    taken.reasons()
                );
            }
        }
    }
    // The JSON itself.
    let (cut, read) = taken(&b"[{\"id\":\"a\"},{\"id\":\"b"[..], &rules(None, Fields::default()));
    assert!(read.unwrap_err().to_string().contains("the JSON is broken"));
    assert_eq!(cut.ids(), ids(&[(1, "a")]));
    assert_eq!(cut.reasons(), [(2, "the file ends inside of this record")]);
}

#[test]
fn another_delimiter_several_texts_and_chosen_metadata() {
    let fields = Fields {
        id: Some("key".to_owned()),
        texts: vec!["title".to_owned(), "body".to_owned()],
        metadata: vec!["year".to_owned()],
    };
    let csv = Some(Format::Csv { delimiter: b';' });
    let (from_csv, read) = taken(
        &b"key;title;body;year;other\n1;A, b;two;1999;x\n2;;only;;\n"[..],
        &rules(csv, fields.clone()),
    );
    read.unwrap();
    let expected = [
        (
            2,
            r#"{"id":"1","content":"A, b\n\ntwo","metadata":{"year":"1999"}}"#.to_owned(),
        ),
        (3, r#"{"id":"2","content":"only","metadata":{"year":""}}"#.to_owned()),
    ];
    assert_eq!(from_csv.records, expected);

    let number = "123456789012345678901234567890";
    let json = format!("{{\"key\":{number},\"title\":\"A\",\"body\":null,\"year\":{number},\"other\":1}}\n");
    let (from_json, read) = taken(json.as_bytes(), &rules(None, fields));
    read.unwrap();
    let expected = format!(r#"{{"id":"{number}","content":"A","metadata":{{"year":{number}}}}}"#);
    assert_eq!(from_json.records, [(1, expected)]);
}

#[test]
fn broken_json_between_others_is_passed_on_or_set_aside_by_its_place() {
    let broken = plain("[{\"id\":\"a\"}, {\"id\":}, {\"id\":\"b\nb\"} nonsense, 7, {\"id\":\"c\"}]");
    let lines: Vec<u64> = broken.records.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 2, 4, 5, 6]);
    assert_eq!(
        broken.reasons(),
        [(3, "not a JSON record: a line break inside of a text")]
    );
    let (_, read) = taken(&b"[{\"id\":\"a\"}] more"[..], &rules(None, Fields::default()));
    assert!(read.is_err());
}

#[test]
fn utf_16_is_told_and_a_row_that_is_not_utf_8_is_set_aside() {
    let (_, read) = taken(&b"\xff\xfei\0d\0"[..], &rules(None, Fields::default()));
    assert!(read.unwrap_err().to_string().contains("UTF-16"));
    let (rows, read) = taken(&b"id,content\na,\xe9t\xe9\nb,x\n"[..], &rules(None, Fields::default()));
    read.unwrap();
    assert_eq!(rows.reasons(), [(2, "not UTF-8")]);
    assert_eq!(rows.ids(), ids(&[(3, "b")]));
}
