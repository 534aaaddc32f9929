//! Owns the finding of names in a piece of SQL that a person wrote. Refuses to know what they mean.

use std::ops::Range;

/// The identifiers, as the server folds them, each with its place. What stands in strings and comments is none.
pub(super) fn identifiers(sql: &str) -> Vec<(Range<usize>, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let length = match first {
            '\'' => string(rest, false),
            '"' => {
                let length = quoted(rest);
                let inner = rest[1..length].strip_suffix('"').unwrap_or_default();
                found.push((at..at + length, inner.replace("\"\"", "\"")));
                length
            }
            '$' => dollar_quoted(rest),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ if first.is_alphabetic() || first == '_' => {
                let length = word(rest);
                match &rest[..length] {
                    "e" | "E" if rest[length..].starts_with('\'') => length + string(&rest[length..], true),
                    name => {
                        found.push((at..at + length, name.to_lowercase()));
                        length
                    }
                }
            }
            _ if first.is_ascii_digit() => word(rest),
            _ => first.len_utf8(),
        };
        at += length;
    }
    found
}

fn word(rest: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    rest.find(|c: char| !is_part(c)).unwrap_or(rest.len())
}

/// A string's length with its quotes; a doubled quote is a part of it, and with escapes one behind a backslash, too.
fn string(rest: &str, escapes: bool) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if escapes => _ = chars.next(),
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => _ = chars.next(),
            '\'' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn quoted(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if chars.peek().is_some_and(|(_, next)| *next == '"') => _ = chars.next(),
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Of `$tag$ … $tag$`; of a `$` that begins none, 1.
fn dollar_quoted(rest: &str) -> usize {
    let Some(tag) = rest[1..].find('$').map(|end| &rest[..end + 2]) else {
        return 1;
    };
    if !tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 1;
    }
    rest[tag.len()..]
        .find(tag)
        .map_or(rest.len(), |end| end + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> Vec<String> {
        identifiers(sql).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn names_are_found_as_the_server_folds_them_and_strings_and_comments_are_none() {
        assert_eq!(
            names("Title || ' body ''s ' || \"Odd \"\"Name\""),
            ["title", "Odd \"Name"]
        );
        assert_eq!(names("E'it\\'s x' || e2 -- y\n/* z */ || $q$ a $ b $q$ || $1"), ["e2"]);
        assert_eq!(names("left(größe, 10) -- "), ["left", "größe"]);
        assert_eq!(names("'unended"), Vec::<String>::new());
        assert_eq!(names("a - 1e5 - $b"), ["a", "b"]);
    }

    #[test]
    fn each_name_stands_where_it_is_said_to() {
        let sql = "a || \"B\"";
        let places: Vec<&str> = identifiers(sql).into_iter().map(|(place, _)| &sql[place]).collect();
        assert_eq!(places, ["a", "\"B\""]);
    }
}
