//! Owns what has become of the columns that an attached table's functions name. Refuses to look at rows.

use tokio_postgres::types::Type;

use super::{Fault, Now};
use crate::sources::Source;
use crate::sources::command::{ColumnChanges, again};
use crate::sources::table::Column;
use crate::sources::vector_column::unqualified;
use crate::{Store, StoreError};

/// A column as it was when the table was attached.
pub(super) struct Frozen {
    name: String,
    number: i16,
    /// Its type, then and now.
    was: String,
    is: Option<String>,
    /// The options that use it, without their dashes.
    options: Vec<String>,
}

impl Frozen {
    /// In words, if it has another type now.
    pub fn changed_type(&self) -> Option<String> {
        let (name, was) = (&self.name, &self.was);
        let is = self.is.as_ref().filter(|is| *is != was)?;
        Some(format!("{name} was {was} when the table was attached and is {is} now"))
    }

    /// `--id and --text`.
    fn used_by(&self) -> String {
        let options: Vec<String> = self.options.iter().map(|option| format!("--{option}")).collect();
        options.join(" and ")
    }
}

impl Store {
    pub(super) async fn faults_of_columns(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let columns = self.columns(now.oid).await?;
        let frozen = self.frozen_columns(source).await?;
        let changes = changes(&frozen, &columns);
        let mut faults = names(source, now, &frozen, &changes);
        if faults.is_empty() {
            faults.extend(self.faults_of_key(source, now, &frozen, &columns).await?);
            faults.extend(virtuals(source, now, &frozen, &columns));
        }
        faults.extend(self.fault_of_vectors(source, now, &columns, &changes).await?);
        Ok(faults)
    }

    pub(super) async fn frozen_columns(&self, source: &Source) -> Result<Vec<Frozen>, StoreError> {
        let rows = self
            .query(
                "SELECT c.name, c.number, c.options, c.type, cronvec.type_name(a.atttypid)
                 FROM cronvec.sources s
                 CROSS JOIN LATERAL jsonb_to_recordset(s.table_columns) AS c (name text, number int2, type text, options text[])
                 LEFT JOIN pg_attribute a ON a.attrelid = s.relation AND a.attname = c.name AND NOT a.attisdropped
                 WHERE s.id = $1 ORDER BY c.number LIMIT 2000",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Frozen {
                name: row.get(0),
                number: row.get(1),
                options: row.get(2),
                was: row.get(3),
                is: row.get(4),
            })
            .collect())
    }

    /// The column that gets the vectors.
    async fn fault_of_vectors(
        &self,
        source: &Source,
        now: &Now,
        columns: &[Column],
        changes: &ColumnChanges,
    ) -> Result<Option<Fault>, StoreError> {
        let Some(name) = source.embedding_column.as_ref() else {
            return Ok(None);
        };
        let (table, width, vector) = (&now.name, now.width, &now.vector);
        if changes.renamed.iter().any(|(from, _)| from == name) {
            return Ok(None);
        }
        let Some(column) = columns.iter().find(|column| column.name == *name) else {
            return Ok(Some(Fault::fail(
                format!("{table} has no column {name} any more: vectors can't be written to it"),
                format!(
                    "ALTER TABLE {table} ADD COLUMN \"{}\" {vector}({width})",
                    name.replace('"', "\"\"")
                ),
            )));
        };
        let quoted = &column.quoted;
        let type_of = unqualified(&column.full_type);
        if type_of != "vector" && type_of != format!("vector({width})") {
            return Ok(Some(Fault::fail(
                format!(
                    "{quoted} of {table} is {type_of}, and project '{}' embeds with {width} dimensions",
                    source.project
                ),
                self.made_to_hold(table, column, u16::try_from(width).unwrap_or_default())
                    .await?,
            )));
        }
        if source.on_change == "null" && column.not_null {
            return Ok(Some(Fault::fail(
                format!("{quoted} of {table} can't be emptied any more when a text changes"),
                format!("ALTER TABLE {table} ALTER COLUMN {quoted} DROP NOT NULL"),
            )));
        }
        Ok(None)
    }

    async fn faults_of_key(
        &self,
        source: &Source,
        now: &Now,
        frozen: &[Frozen],
        columns: &[Column],
    ) -> Result<Vec<Fault>, StoreError> {
        let table = &now.name;
        let mut faults = Vec::new();
        let key: Vec<&Column> = source
            .key
            .iter()
            .filter_map(|name| columns.iter().find(|column| column.name == *name))
            .collect();
        for column in &key {
            let quoted = &column.quoted;
            if !column.not_null {
                faults.push(Fault::fail(
                    format!("{quoted}, by which rows of {table} are told apart, may be null now"),
                    format!("ALTER TABLE {table} ALTER COLUMN {quoted} SET NOT NULL"),
                ));
            }
            let frozen = frozen.iter().find(|frozen| frozen.name == column.name);
            if let Some(changed) = frozen.and_then(Frozen::changed_type) {
                faults.push(Fault::fail(
                    format!("{changed}, and rows of {table} are told apart by it"),
                    now.again(source),
                ));
            }
        }
        let names: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
        if !self.is_unique(now.oid, &names).await? {
            let quoted: Vec<&str> = key.iter().map(|column| column.quoted.as_str()).collect();
            let quoted = quoted.join(", ");
            faults.push(Fault::fail(
                format!("two rows of {table} may have the same {quoted} now: of those only one would be a record"),
                format!("CREATE UNIQUE INDEX ON {table} ({quoted})"),
            ));
        }
        Ok(faults)
    }
}

fn changes(frozen: &[Frozen], columns: &[Column]) -> ColumnChanges {
    let mut changes = ColumnChanges::default();
    for was in frozen {
        if columns.iter().any(|column| column.name == was.name) {
            continue;
        }
        match columns.iter().find(|column| column.number == was.number) {
            Some(column) => changes.renamed.push((was.name.clone(), column.name.clone())),
            None => changes.dropped.push(was.name.clone()),
        }
    }
    changes
}

/// Columns that have another name or are gone, but for the one of the vectors, which is made again when it is gone.
fn names(source: &Source, now: &Now, frozen: &[Frozen], changes: &ColumnChanges) -> Vec<Fault> {
    let table = &now.name;
    let command = again(source, table, changes);
    let renamed = changes.renamed.iter().filter_map(|(name, new)| {
        let was = frozen.iter().find(|frozen| frozen.name == *name)?;
        let found = format!(
            "column {name} of {table}, which {} uses, is named {new} now",
            was.used_by()
        );
        Some(Fault::fail(found, command.clone()))
    });
    let dropped = changes.dropped.iter().filter_map(|name| {
        let was = frozen.iter().find(|frozen| frozen.name == *name)?;
        if was.options == ["embedding-column"] {
            return None;
        }
        let found = format!(
            "column {name} of {table}, which {} uses, isn't there any more",
            was.used_by()
        );
        let mend = match command.contains('…') {
            true => format!("bring the column back, or say what to use instead: {command}"),
            false => command.clone(),
        };
        Some(Fault::fail(found, mend))
    });
    renamed.chain(dropped).collect()
}

/// Triggers see them as NULL.
fn virtuals(source: &Source, now: &Now, frozen: &[Frozen], columns: &[Column]) -> Vec<Fault> {
    let used = frozen.iter().filter_map(|was| {
        let column = columns.iter().find(|column| column.name == was.name)?;
        let expression = column.virtual_sql.as_ref()?;
        // A column that an expression doesn't name may be an argument of its function all the same.
        source.uses(&was.name).then(|| {
            Fault::fail(
                format!(
                    "{} of {}, which {} uses, is a virtual generated column now: triggers see it as NULL",
                    column.quoted,
                    now.name,
                    was.used_by()
                ),
                column.stored(&now.name, expression),
            )
        })
    });
    used.collect()
}
