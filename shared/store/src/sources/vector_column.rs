//! Owns whether a column of a user's table can hold a project's vectors, and what a person does where it can't. Refuses to
//! change it, and to advise what would lose vectors.

use super::super::begin::Begin;
use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::attach::invalid;
use super::table::{Column, Table};
use cronvec_nouns::space::{ProviderKind, SpaceSpec};

/// Types that pgvector makes vectors of, number by number.
const OF_NUMBERS: [&str; 5] = ["real[]", "double precision[]", "numeric[]", "integer[]", "halfvec"];

/// A look at a column that may be anything.
const LOOK: Begin = Begin::read("SET LOCAL row_security = off; SET LOCAL statement_timeout = '5s'");

/// What stands in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    /// Numbers; so many in the first row that has some.
    Numbers(i32),
    Something,
}

impl Store {
    /// The column that gets the vectors, if it can hold them.
    pub(super) async fn vector_column(
        &self,
        table: &Table,
        written: &str,
        project: &Project,
        space: &SpaceSpec,
        forgets: bool,
    ) -> Result<Column, StoreError> {
        let (name, width) = (&table.name, space.dimensions);
        let prefix = self.vector_prefix().await?;
        let Some(column) = table.find(written) else {
            return Err(invalid(format!(
                "{name} has no column {written}; run: ALTER TABLE {name} ADD COLUMN {written} {prefix}vector({width})"
            )));
        };
        let quoted = &column.quoted;
        let type_of = unqualified(&column.full_type);
        if type_of != "vector" && type_of != format!("vector({width})") {
            let held = self.held(name, column).await;
            return Err(invalid(format!(
                "{quoted} of {name} is {type_of}, and project '{}' embeds with {}, {width} dimensions{}; {}",
                project.name,
                space.model,
                unless_chosen(space),
                advice(name, column, &prefix, width, held)
            )));
        }
        if column.is_generated {
            return Err(invalid(format!(
                "{quoted} of {name} is generated; name a column that can be written"
            )));
        }
        if forgets && column.not_null {
            return Err(invalid(format!(
                "{quoted} of {name} can't be emptied; use --on-change keep or run: ALTER TABLE {name} ALTER COLUMN {quoted} DROP NOT NULL"
            )));
        }
        Ok(column.clone())
    }

    /// What makes such a column hold vectors of this width: a statement, or, where it would lose what stands there, what
    /// else there is to do.
    pub(super) async fn made_to_hold(&self, table: &str, column: &Column, width: u16) -> Result<String, StoreError> {
        let prefix = self.vector_prefix().await?;
        let held = self.held(table, column).await;
        Ok(match statement(table, column, &prefix, width, held) {
            Some(statement) => statement,
            None => advice(table, column, &prefix, width, held),
        })
    }

    /// What can't be looked at counts as something.
    async fn held(&self, name: &str, column: &Column) -> Held {
        let quoted = &column.quoted;
        let is_numbers = OF_NUMBERS.contains(&unqualified(&column.bare_type));
        let width = match is_numbers {
            true => format!("cardinality(t.{quoted}::real[])"),
            false => "-1".to_owned(),
        };
        let statement = format!("SELECT {width} FROM {name} AS t WHERE t.{quoted} IS NOT NULL LIMIT 1");
        match self.query_in_transaction(LOOK, &statement, &[]).await {
            Err(_) => Held::Something,
            Ok(rows) => match rows.first().map(|row| row.get::<_, i32>(0)) {
                None => Held::Nothing,
                Some(width) if is_numbers => Held::Numbers(width),
                Some(_) => Held::Something,
            },
        }
    }
}

/// The likely reason why a project's width is nobody's.
fn unless_chosen(space: &SpaceSpec) -> &'static str {
    if space.provider == ProviderKind::Static {
        return " (the built-in model, which is taken where EMBEDDING_PROVIDER isn't set)";
    }
    ""
}

/// None where one would lose what stands in the column.
fn statement(table: &str, column: &Column, prefix: &str, width: u16, held: Held) -> Option<String> {
    let quoted = &column.quoted;
    let using = match held {
        Held::Numbers(numbers) if numbers == i32::from(width) => format!("{quoted}::{prefix}vector({width})"),
        Held::Nothing if width_of(&column.full_type) == Some(width) => format!("{quoted}::{prefix}vector({width})"),
        Held::Nothing => "NULL".to_owned(),
        Held::Numbers(_) | Held::Something => return None,
    };
    Some(format!(
        "ALTER TABLE {table} ALTER COLUMN {quoted} TYPE {prefix}vector({width}) USING {using}"
    ))
}

/// Never a statement that loses what stands in the column.
fn advice(table: &str, column: &Column, prefix: &str, width: u16, held: Held) -> String {
    if let Some(statement) = statement(table, column, prefix, width, held) {
        return match held {
            Held::Numbers(_) => format!("run: {statement}, which keeps its vectors"),
            _ if statement.ends_with(" NULL") => format!("it is empty: run: {statement}"),
            _ => format!("run: {statement}"),
        };
    }
    let beside = format!(
        "ALTER TABLE {table} ADD COLUMN {} {prefix}vector({width})",
        with_suffix(column, width)
    );
    let another = match width_of(&column.full_type) {
        Some(other) => format!("EMBEDDING_DIMENSIONS={other}"),
        None => "EMBEDDING_DIMENSIONS".to_owned(),
    };
    let of_its_model = format!(
        "to keep them, set EMBEDDING_PROVIDER, EMBEDDING_MODEL and {another} to what made them and attach to a new \
         project with --project; or give this project's vectors a column of their own: {beside}"
    );
    match held {
        Held::Numbers(numbers) => {
            format!("it has vectors of {numbers} numbers, which no ALTER TABLE can turn into these; {of_its_model}")
        }
        Held::Something if unqualified(&column.bare_type) == "vector" => {
            format!("it has vectors, which an ALTER TABLE would lose; {of_its_model}")
        }
        Held::Nothing | Held::Something => format!("it isn't empty; name another column, or run: {beside}"),
    }
}

pub(super) fn unqualified(type_of: &str) -> &str {
    type_of.rsplit('.').next().unwrap_or_default()
}

/// `vector(1536)`: 1536.
fn width_of(type_of: &str) -> Option<u16> {
    let (_, rest) = type_of.split_once('(')?;
    rest.strip_suffix(')')?.parse().ok()
}

/// A name for a column beside this one.
fn with_suffix(column: &Column, width: u16) -> String {
    match column.quoted.strip_suffix('"') {
        Some(quoted) => format!("{quoted}_{width}\""),
        None => format!("{}_{width}", column.quoted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(full_type: &str) -> Column {
        Column {
            name: "v".into(),
            quoted: "v".into(),
            literal: "'v'".into(),
            full_type: full_type.into(),
            bare_type: full_type.split('(').next().unwrap().into(),
            base: String::new(),
            not_null: false,
            is_generated: false,
            number: 1,
            virtual_sql: None,
        }
    }

    #[test]
    fn nothing_that_stands_in_a_column_is_advised_away() {
        for full_type in [
            "vector(3)",
            "halfvec(3)",
            "public.vector(3)",
            "real[]",
            "double precision[]",
            "text",
            "sparsevec(3)",
        ] {
            for held in [Held::Numbers(3), Held::Numbers(8), Held::Something] {
                let said = advice("t", &column(full_type), "", 8, held);
                assert!(!said.contains("USING NULL"), "{full_type} {held:?}: {said}");
            }
        }
    }

    #[test]
    fn numbers_of_the_right_width_are_kept_and_an_empty_column_is_changed() {
        let said = |full_type, held| advice("t", &column(full_type), "", 8, held);
        assert!(said("double precision[]", Held::Numbers(8)).contains("TYPE vector(8) USING v::vector(8)"));
        assert!(said("halfvec(8)", Held::Nothing).contains("USING v::vector(8)"));
        assert!(said("vector(3)", Held::Nothing).contains("TYPE vector(8) USING NULL"));
        let full = said("vector(1536)", Held::Something);
        assert!(
            full.contains("EMBEDDING_DIMENSIONS=1536") && full.contains("ADD COLUMN v_8 vector(8)"),
            "{full}"
        );
    }

    #[test]
    fn a_quoted_name_stays_quoted() {
        let mut quoted = column("vector(3)");
        quoted.quoted = "\"My V\"".into();
        assert_eq!(with_suffix(&quoted, 8), "\"My V_8\"");
    }
}
