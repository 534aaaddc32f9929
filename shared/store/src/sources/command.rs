//! Owns the command that attaches a table again as it is attached, with the names that its columns have now. Refuses to
//! run it.

use super::Source;
use super::identifiers::identifiers;

/// What has become of columns since the table was attached.
#[derive(Debug, Default)]
pub(super) struct ColumnChanges {
    /// From, to.
    pub renamed: Vec<(String, String)>,
    pub dropped: Vec<String>,
}

impl ColumnChanges {
    fn new_name(&self, column: &str) -> Option<&str> {
        let renamed = self.renamed.iter().find(|(from, _)| from == column);
        renamed.map(|(_, to)| to.as_str())
    }

    fn is_dropped(&self, column: &str) -> bool {
        self.dropped.iter().any(|dropped| dropped == column)
    }

    fn name_of(&self, column: &str) -> String {
        self.new_name(column).unwrap_or(column).to_owned()
    }

    /// What a person wrote, with the new names. Columns that are gone are left out of a list; of an expression that uses
    /// one nobody knows what it would be without.
    fn applied(&self, sql: &str) -> Written {
        let names = identifiers(sql);
        let is_list = sql
            .split(',')
            .map(str::trim)
            .eq(names.iter().map(|(place, _)| &sql[place.clone()]));
        if is_list {
            let left: Vec<String> = names
                .iter()
                .filter(|(_, name)| !self.is_dropped(name))
                .map(|(place, name)| self.new_name(name).map_or(sql[place.clone()].to_owned(), quoted))
                .collect();
            return match left.is_empty() {
                true => Written::Unknown,
                false => Written::Known(left.join(", ")),
            };
        }
        let mut written = String::new();
        let mut end = 0;
        for (place, name) in &names {
            if self.is_dropped(name) {
                return Written::Unknown;
            }
            if let Some(new) = self.new_name(name) {
                written += &sql[end..place.start];
                written += &quoted(new);
                end = place.end;
            }
        }
        Written::Known(written + &sql[end..])
    }
}

enum Written {
    Known(String),
    /// A person has to say it.
    Unknown,
}

/// `cronvec attach` with all that is known of the source, for a shell. `…` stands where a person has to say something.
pub(super) fn again(source: &Source, table: &str, changes: &ColumnChanges) -> String {
    let key: Vec<String> = source.key.iter().map(|column| changes.name_of(column)).collect();
    let expression = |sql: &str| match changes.applied(sql) {
        Written::Known(sql) => sql,
        Written::Unknown => "…".to_owned(),
    };
    let mut words = vec!["cronvec attach".to_owned(), shell(table)];
    let mut option = |name: &str, value: &str| words.push(format!("--{name} {}", shell(value)));
    option("project", &source.project);
    if !source.key.iter().any(|column| changes.is_dropped(column)) {
        option("id", &key.join(","));
    }
    option("text", &expression(&source.text));
    if let Some(metadata) = &source.metadata {
        option("metadata", &expression(metadata));
    }
    if let Some(filter) = &source.filter {
        option("where", &expression(filter));
    }
    if let Some(column) = &source.embedding_column {
        option("embedding-column", &changes.name_of(column));
        if source.on_change != "keep" {
            option("on-change", &source.on_change);
        }
    }
    words.join(" ")
}

/// As SQL needs it.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match plain {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./,:".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source {
            id: 1,
            project: "my notes".into(),
            table: "shop.\"Items\"".into(),
            generation: 1,
            attached_as: "shop.\"Items\"".into(),
            key: vec!["order_id".into(), "Line".into()],
            text: "note, \"Remark\"".into(),
            metadata: Some("jsonb_build_object('note', note)".into()),
            filter: Some("shown".into()),
            embedding_column: Some("v".into()),
            on_change: "null".into(),
            phase: "idle".into(),
            passes: 1,
            rows: 0,
            changed: 0,
            adopted: 0,
            deleted: 0,
            trouble: None,
        }
    }

    #[test]
    fn the_command_says_all_that_was_said_and_a_shell_reads_it_so() {
        assert_eq!(
            again(&source(), "shop.\"Items\"", &ColumnChanges::default()),
            "cronvec attach 'shop.\"Items\"' --project 'my notes' --id order_id,Line --text 'note, \"Remark\"' \
             --metadata 'jsonb_build_object('\\''note'\\'', note)' --where shown --embedding-column v --on-change null"
        );
    }

    #[test]
    fn renamed_columns_have_their_new_names_and_those_that_are_gone_are_left_out_of_lists() {
        let changes = ColumnChanges {
            renamed: vec![("note".into(), "Notiz".into()), ("v".into(), "w".into())],
            dropped: vec!["Remark".into(), "shown".into()],
        };
        assert_eq!(
            again(&source(), "shop.items", &changes),
            "cronvec attach shop.items --project 'my notes' --id order_id,Line --text '\"Notiz\"' \
             --metadata 'jsonb_build_object('\\''note'\\'', \"Notiz\")' --where '…' --embedding-column w --on-change null"
        );
    }
}
