//! Owns how SQL is cut into statements, and what the migrations' statements leave of a function or a view. Refuses to run
//! them.

/// The statements of a text, without the comments in front of them. Quotes and dollar quotes hold what they hold.
pub(super) fn statements(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while at < sql.len() {
        let rest = &sql[at..];
        at += match rest.as_bytes()[0] {
            b';' => {
                found.push(&sql[begin..at]);
                begin = at + 1;
                1
            }
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            // A doubled quote ends one string and begins the next.
            quote @ (b'\'' | b'"') => 1 + rest[1..].find(char::from(quote)).map_or(rest.len() - 1, |end| end + 1),
            b'$' => dollar_quoted(rest).map_or(1, |(_, _, length)| length),
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    found
        .into_iter()
        .map(without_comments)
        .filter(|statement| !statement.is_empty())
        .collect()
}

fn without_comments(mut statement: &str) -> &str {
    loop {
        statement = statement.trim();
        match statement.strip_prefix("--") {
            Some(comment) => statement = comment.split_once('\n').map_or("", |(_, rest)| rest),
            None => return statement,
        }
    }
}

/// Of a text that begins with `$tag$`: where what it holds begins and ends, and its whole length.
fn dollar_quoted(rest: &str) -> Option<(usize, usize, usize)> {
    let tag = rest[1..].find('$').map(|end| &rest[..end + 2])?;
    let is_tag = tag[1..tag.len() - 1]
        .chars()
        .all(|c| c.is_ascii_alphabetic() || c == '_');
    let end = is_tag.then(|| rest[tag.len()..].find(tag)).flatten()? + tag.len();
    Some((tag.len(), end, end + tag.len()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Function,
    View,
}

/// A function or a view as the migrations leave it. There is one function of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    pub kind: Kind,
    pub name: String,
    /// `CREATE OR REPLACE …`, and what is altered afterwards.
    pub statements: Vec<String>,
    /// Whether PUBLIC was granted it, or had it revoked.
    pub is_public: Option<bool>,
}

impl Definition {
    /// A function's text as PostgreSQL keeps it; of one that is parsed when it is made there is none.
    pub fn body(&self) -> Option<&str> {
        let create = self.statements.first()?;
        let begin = create.find("AS $")? + 3;
        let (from, to, _) = dollar_quoted(&create[begin..])?;
        Some(&create[begin + from..begin + to])
    }
}

/// What these statements leave, in the order in which it was first made.
pub(super) fn definitions<'a>(statements: impl Iterator<Item = &'a str>) -> Vec<Definition> {
    let mut all: Vec<Definition> = Vec::new();
    for statement in statements {
        if let Some((kind, name, rest)) = created(statement) {
            let what = if kind == Kind::Function { "FUNCTION" } else { "VIEW" };
            let create = format!("CREATE OR REPLACE {what} cronvec.{rest}");
            match all.iter_mut().find(|definition| definition.name == name) {
                Some(definition) => definition.statements = vec![create],
                None => all.push(Definition {
                    kind,
                    name: name.to_owned(),
                    statements: vec![create],
                    is_public: None,
                }),
            }
        } else if let Some(name) = after(statement, &["DROP FUNCTION ", "DROP VIEW "]) {
            all.retain(|definition| definition.name != name);
        } else if let Some(name) = after(statement, &["ALTER FUNCTION ", "ALTER VIEW "]) {
            if let Some(definition) = all.iter_mut().find(|definition| definition.name == name) {
                definition.statements.push(statement.to_owned());
            }
        } else if let Some(is_granted) = of_public(statement) {
            for definition in &mut all {
                if names(statement, &definition.name) {
                    definition.is_public = Some(is_granted);
                }
            }
        }
    }
    all
}

fn created(statement: &str) -> Option<(Kind, &str, &str)> {
    let rest = statement.strip_prefix("CREATE ")?;
    let rest = rest.strip_prefix("OR REPLACE ").unwrap_or(rest);
    let (kind, rest) = match rest.strip_prefix("FUNCTION cronvec.") {
        Some(rest) => (Kind::Function, rest),
        None => (Kind::View, rest.strip_prefix("VIEW cronvec.")?),
    };
    Some((kind, word(rest), rest))
}

fn after<'a>(statement: &'a str, beginnings: &[&str]) -> Option<&'a str> {
    let rest = beginnings
        .iter()
        .find_map(|beginning| statement.strip_prefix(beginning))?;
    let rest = rest.strip_prefix("IF EXISTS ").unwrap_or(rest);
    Some(word(rest.strip_prefix("cronvec.")?))
}

fn of_public(statement: &str) -> Option<bool> {
    if statement.starts_with("GRANT ") && statement.ends_with(" TO PUBLIC") {
        return Some(true);
    }
    (statement.starts_with("REVOKE ") && statement.ends_with(" FROM PUBLIC")).then_some(false)
}

fn names(statement: &str, name: &str) -> bool {
    statement.split("cronvec.").skip(1).any(|rest| word(rest) == name)
}

fn word(rest: &str) -> &str {
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &rest[..end.unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_semicolons_that_stand_in_no_quotes() {
        let sql = "-- About; this.\nSELECT ';', \"a;b\", 'it''s;';\n\nDO $$ BEGIN; -- it's\nEND $$;\nSELECT $x$ $$;$$ $x$ -- ;\n;";
        assert_eq!(
            statements(sql),
            [
                "SELECT ';', \"a;b\", 'it''s;'",
                "DO $$ BEGIN; -- it's\nEND $$",
                "SELECT $x$ $$;$$ $x$ -- ;"
            ]
        );
    }

    #[test]
    fn the_last_definition_counts_with_what_was_altered_afterwards() {
        let sql = "CREATE FUNCTION cronvec.a(x int) RETURNS int AS $$ 1 $$;
            CREATE FUNCTION cronvec.ab(x int) RETURNS int RETURN x;
            ALTER FUNCTION cronvec.a(int) STABLE;
            REVOKE EXECUTE ON FUNCTION cronvec.a(int), cronvec.c(int) FROM PUBLIC;
            CREATE OR REPLACE FUNCTION cronvec.a(x int) RETURNS int AS $$ 2 $$;
            ALTER FUNCTION cronvec.a(int) SET search_path = pg_catalog;
            CREATE VIEW cronvec.v AS SELECT 1;
            GRANT SELECT ON cronvec.v TO PUBLIC;
            DROP FUNCTION cronvec.ab(int);";
        let all = definitions(statements(sql).into_iter());
        let named: Vec<(&str, Option<bool>, usize)> = all
            .iter()
            .map(|one| (one.name.as_str(), one.is_public, one.statements.len()))
            .collect();
        assert_eq!(named, [("a", Some(false), 2), ("v", Some(true), 1)]);
        assert_eq!(all[0].body(), Some(" 2 "));
        assert_eq!(all[1].statements, ["CREATE OR REPLACE VIEW cronvec.v AS SELECT 1"]);
        assert_eq!(all[1].body(), None);
    }
}
