//! Owns the search for what is wrong with an attached table since it was attached, each with its mend. Refuses to mend it.

mod columns;
mod functions;
mod reading;
mod rights;
mod triggers;

use tokio_postgres::types::Type;

use super::super::{Store, StoreError};
use super::Source;
use super::command::{ColumnChanges, again};
use super::compile::GENERATION;

/// Something that isn't as `attach` left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Changes or vectors are lost until it is mended; else they are only found later.
    pub fails: bool,
    pub found: String,
    pub mend: String,
}

impl Fault {
    fn fail(found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            fails: true,
            ..Self::warn(found, mend)
        }
    }

    fn warn(found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            fails: false,
            found: found.into(),
            mend: mend.into(),
        }
    }
}

/// The table as it is now; names are quoted.
struct Now {
    oid: u32,
    name: String,
    /// Another table has the name that this one was attached by.
    is_replaced: bool,
    owner: String,
    me: String,
    width: i32,
    /// pgvector's type, with its schema where a session needs it.
    vector: String,
    /// Of the schema `cronvec`.
    owner_of_schema: String,
}

impl Now {
    /// The command that makes functions and triggers again, as the table is now.
    fn again(&self, source: &Source) -> String {
        again(source, &self.name, &ColumnChanges::default())
    }
}

impl Store {
    /// What this role finds wrong with the table: rights are those of whoever asks.
    pub async fn source_faults(&self, source: &Source) -> Result<Vec<Fault>, StoreError> {
        let Some(now) = self.now(source).await? else {
            return Ok(vec![self.gone(source).await?]);
        };
        let mut faults = Vec::new();
        if now.is_replaced {
            faults.push(Fault::fail(
                format!(
                    "{} is another table now; the one that is attached is named {}",
                    source.attached_as, now.name
                ),
                again(source, &source.attached_as, &ColumnChanges::default()),
            ));
        }
        faults.extend(self.faults_of_columns(source, &now).await?);
        faults.extend(self.faults_of_triggers(source, &now).await?);
        let of_functions = self.faults_of_functions(source, &now).await?;
        let are_functions_well = of_functions.is_empty();
        faults.extend(of_functions);
        faults.extend(self.faults_of_owner(source, &now).await?);
        faults.extend(self.faults_of_worker(source, &now).await?);
        if are_functions_well && !faults.iter().any(|fault| fault.fails) {
            // Else it would say the same once more, in worse words.
            faults.extend(self.fault_of_reading(source, &now).await?);
        }
        attach_again_alone(&mut faults);
        if let Some(strangers @ 1..) = self.strangers(source).await? {
            faults.push(Fault::warn(
                format!(
                    "{strangers} records of project {} don't come from {}: searches find them, and comparisons leave them",
                    source.project, now.name
                ),
                format!(
                    "to delete those that have no row: cronvec reconcile {} --take-over; to keep them, write them to \
                     another project first",
                    source.project
                ),
            ));
        }
        if source.generation < GENERATION {
            faults.push(Fault::warn(
                format!(
                    "{} was attached by an older version: one row that can't be read keeps all from being compared, and large \
                     statements cost memory",
                    now.name
                ),
                now.again(source),
            ));
        }
        if let Some(trouble) = &source.trouble {
            faults.push(Fault::warn(
                format!("the last comparison didn't get through: {trouble}"),
                format!("mend what it says, then: cronvec reconcile {}", source.project),
            ));
        }
        Ok(faults)
    }

    /// Of a table that was dropped: whether another has come in its place.
    async fn gone(&self, source: &Source) -> Result<Fault, StoreError> {
        let name = &source.attached_as;
        Ok(match self.is_table(name).await? {
            true => Fault::fail(
                format!("{name} was dropped and made again: nothing of the new one is noticed"),
                again(source, name, &ColumnChanges::default()),
            ),
            false => Fault::fail(format!("{name} is gone"), format!("cronvec detach {}", source.project)),
        })
    }

    async fn is_table(&self, quoted: &str) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE format('%I.%I', n.nspname, c.relname) = $1 AND c.relkind IN ('r', 'p'))",
                &[(&quoted, Type::TEXT)],
            )
            .await?;
        Ok(row.get(0))
    }

    async fn now(&self, source: &Source) -> Result<Option<Now>, StoreError> {
        let row = self
            .query_opt(
                "SELECT c.oid, format('%I.%I', n.nspname, c.relname), quote_ident(pg_get_userbyid(c.relowner)),
                     quote_ident(current_user), sp.dimensions, quote_ident(pg_get_userbyid(ours.nspowner))
                 FROM cronvec.sources s JOIN cronvec.projects p ON p.id = s.project_id
                 JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                 JOIN cronvec.spaces sp ON sp.id = l.space_id
                 JOIN pg_class c ON c.oid = s.relation JOIN pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_namespace ours ON ours.nspname = 'cronvec'
                 WHERE s.id = $1",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let name: String = row.get(1);
        Ok(Some(Now {
            oid: row.get(0),
            is_replaced: name != source.attached_as && self.is_table(&source.attached_as).await?,
            name,
            owner: row.get(2),
            me: row.get(3),
            width: row.get(4),
            vector: format!("{}vector", self.vector_prefix().await?),
            owner_of_schema: row.get(5),
        }))
    }
}

/// Attaching again makes triggers, too: what makes one alone would find it there, or no function for it.
fn attach_again_alone(faults: &mut [Fault]) {
    let again = faults.iter().find(|fault| fault.mend.starts_with("cronvec attach "));
    let Some(again) = again.map(|fault| fault.mend.clone()) else {
        return;
    };
    for fault in faults
        .iter_mut()
        .filter(|fault| fault.mend.starts_with("CREATE TRIGGER "))
    {
        fault.mend.clone_from(&again);
    }
}
