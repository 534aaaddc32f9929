//! Owns the functions and triggers of one attached table, as SQL. Refuses to put anything into it that the server hasn't
//! quoted; what users wrote is inside the functions of `expression`.

mod event;
mod reads;

pub(super) use reads::Mode;

use super::expression::Expression;
use super::table::{Column, Table};

/// Which functions these are; `sources.generation` says it of those that are there.
pub(super) const GENERATION: i16 = 1;

/// What a text may depend on besides its row stands fast, whoever writes.
pub(super) const SETTINGS: &str =
    "SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex'";

pub(super) struct Plan<'a> {
    pub id: i32,
    pub project_id: i32,
    pub table: &'a Table,
    pub key: Vec<Column>,
    pub text: Expression,
    pub metadata: Option<Expression>,
    pub filter: Option<Expression>,
    pub embedding_column: Option<Column>,
    pub forgets: bool,
    /// The extension's type, with its schema.
    pub vector: String,
    /// The server tells where a value that is out of line stands (PostgreSQL 17 and newer).
    pub knows_places: bool,
}

/// A function of a source. Each runs with the rights of its owner.
pub(super) struct Function {
    pub signature: String,
    pub create: String,
    /// It reads or writes the table, and belongs to the table's owner; the others write to our tables.
    pub of_table: bool,
}

/// A policy that would hide a row is an error: what isn't seen would be taken for gone.
const OF_WORKERS: &str = "SET row_security = off";

impl Plan<'_> {
    /// One that workers call: it belongs to the table's owner, and goes no further if that has taken its owner's rights
    /// from it.
    fn of_workers(&self, name: &str, arguments: &str, rest: &str, body: &str) -> Function {
        let check = format!(
            "BEGIN\n    PERFORM cronvec.assert_definer('source_{}_{name}');",
            self.id
        );
        let body = body.replacen("BEGIN", &check, 1);
        self.function(name, arguments, &format!("{rest} {OF_WORKERS}"), &body, true)
    }

    /// One for a look at the table before it is attached: it goes with the transaction.
    pub(super) fn look(&self, name: &str, returns: &str, body: &str) -> Function {
        let rest = format!("{returns} LANGUAGE plpgsql VOLATILE {SETTINGS} {OF_WORKERS}");
        self.function(name, "", &rest, body, true)
    }

    pub(super) fn function(&self, name: &str, arguments: &str, rest: &str, body: &str, of_table: bool) -> Function {
        let types: Vec<&str> = arguments
            .split(", ")
            .filter_map(|argument| argument.split_once(' ').map(|(_, kind)| kind))
            .collect();
        let mut tag = "$body$".to_owned();
        while body.contains(&tag) {
            tag = tag.replace("body", "body_");
        }
        Function {
            signature: format!("cronvec.source_{}_{name}({})", self.id, types.join(", ")),
            create: format!(
                "CREATE FUNCTION cronvec.source_{}_{name}({arguments}) {rest} SECURITY DEFINER AS {tag}\n{body}\n{tag}",
                self.id
            ),
            of_table,
        }
    }

    pub(super) fn passes(&self, row: &str) -> String {
        self.filter
            .as_ref()
            .map_or("true".into(), |filter| filter.of(self.id, row))
    }

    fn metadata_of(&self, row: &str) -> String {
        self.metadata
            .as_ref()
            .map_or("'{}'::jsonb".into(), |metadata| metadata.of(self.id, row))
    }

    fn keys(&self, row: &str) -> String {
        let keys: Vec<String> = self.key.iter().map(|c| format!("{row}.{}", c.quoted)).collect();
        keys.join(", ")
    }

    pub fn functions(&self) -> Vec<Function> {
        let mut all = vec![
            self.take(),
            self.truncated(),
            self.event(),
            self.page(),
            self.named(),
            self.there(),
            self.count(),
        ];
        if let Some(column) = &self.embedding_column {
            all.extend([self.lock(), self.set(column)]);
            if self.forgets {
                all.push(self.forget(column));
            }
        }
        all
    }

    /// Locks the rows of these ids that nobody else holds; gives them, and those that have no row.
    fn lock(&self) -> Function {
        let sql = format!(
            "WITH mine AS MATERIALIZED (
                SELECT i.id FROM {named} CROSS JOIN LATERAL (
                    SELECT FROM @table@ AS t WHERE {is} LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS t
            )
            SELECT m.id FROM mine m
            UNION ALL
            SELECT i.id FROM {named} WHERE NOT EXISTS (SELECT FROM @table@ AS t WHERE {is})",
            named = self.named_ids("$1"),
            is = self.is_named()
        );
        let body = format!("BEGIN\n    {}\nEND", self.in_place(&sql));
        let rest = format!("RETURNS SETOF text LANGUAGE plpgsql VOLATILE {SETTINGS}");
        self.of_workers("lock", "ids text[]", &rest, &body)
    }

    /// Writes vectors into the table's own column, and nothing else of it. The rows are locked.
    ///
    /// The table's own triggers run under the names that they know, those of its schema and `public`: what is looked up by
    /// then names its schema.
    fn set(&self, column: &Column) -> Function {
        let columns: Vec<(String, &Column)> = (1..).map(|nth: u8| format!("key_{nth}")).zip(&self.key).collect();
        let joined = |text: &dyn Fn(&(String, &Column)) -> String, by: &str| -> String {
            columns.iter().map(text).collect::<Vec<_>>().join(by)
        };
        let find = format!(
            "SELECT {}, array_agg(v.vector) FROM unnest($1, $2) AS v (id, vector) JOIN (
                SELECT i.id AS cronvec_id, t.* FROM {named} CROSS JOIN LATERAL (
                    SELECT {keys} FROM @table@ AS t WHERE {is} LIMIT 1) AS t) AS t ON t.cronvec_id = v.id",
            joined(&|(_, key)| format!("array_agg(t.{}::{})", key.quoted, key.base), ", "),
            named = self.named_ids("$1"),
            keys = self.keys("t"),
            is = self.is_named(),
        );
        let update = format!(
            "UPDATE @table@ AS u SET {} = k.vector FROM unnest({}, $1) AS k ({}, vector) WHERE {}",
            column.quoted,
            joined(&|(name, _)| name.clone(), ", "),
            joined(&|(name, _)| name.clone(), ", "),
            joined(
                &|(name, key)| format!("u.{} OPERATOR(pg_catalog.=) k.{name}", key.quoted),
                " AND "
            ),
        );
        let names = joined(&|(name, _)| name.clone(), ", ");
        let numbered: Vec<String> = (1..=columns.len()).map(|nth| format!("${nth}")).collect();
        let update_now = update.replace(
            &format!("unnest({names}, $1)"),
            &format!("unnest({}, ${})", numbered.join(", "), columns.len() + 1),
        );
        let body = format!(
            "DECLARE
    {declared};
    found vectors%TYPE;
    is_named_so boolean := {named_so};
    written bigint;
BEGIN
    IF is_named_so THEN
        {find} INTO {names}, found;
    ELSE
        EXECUTE {find_now} INTO {names}, found USING ids, vectors;
    END IF;
    PERFORM set_config('search_path', (
        SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = cronvec.table_of({id})) || ', public', true);
    IF is_named_so THEN
        {update};
    ELSE
        EXECUTE {update_now} USING {names}, found;
    END IF;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END",
            declared = joined(&|(name, key)| format!("{name} pg_catalog.{}[]", key.base), ";\n    "),
            find = find
                .replace("@table@", &self.table.name)
                .replace("$1", "ids")
                .replace("$2", "vectors"),
            find_now = self.with_table_now(&find),
            named_so = self.has_its_name(),
            id = self.id,
            update = update.replace("@table@", &self.table.name).replace("$1", "found"),
            update_now = self
                .with_table_now(&update_now)
                .replacen("replace(", "pg_catalog.replace(", 1),
        );
        let rest = format!("RETURNS bigint LANGUAGE plpgsql VOLATILE {SETTINGS}");
        self.of_workers("set", &format!("ids text[], vectors {}[]", self.vector), &rest, &body)
    }

    /// Empties the column when the text is another. The trigger names no column, so that a migration may change them all:
    /// this is called for each row that is updated, and asks for the text only where one of its columns has changed.
    /// Whatever it can't compare, the trigger of the statement warns of.
    fn forget(&self, column: &Column) -> Function {
        let changed: Vec<String> = self
            .text
            .columns
            .iter()
            .map(|c| format!("OLD.{0}::text IS DISTINCT FROM NEW.{0}::text", c.quoted))
            .collect();
        let changed = match changed.is_empty() {
            true => "true".into(),
            false => changed.join(" OR "),
        };
        let body = format!(
            "BEGIN
    IF {changed} THEN
        IF {} IS DISTINCT FROM {} THEN
            NEW.{} := NULL;
        END IF;
    END IF;
    RETURN NEW;
EXCEPTION WHEN OTHERS THEN
    RETURN NEW;
END",
            self.text.of(self.id, "OLD"),
            self.text.of(self.id, "NEW"),
            column.quoted
        );
        // Each setting would cost a microsecond a row; both texts are made under the same ones.
        let rest = "RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp";
        self.function("forget", "", rest, &body, true)
    }

    /// The triggers of the table, or of one of its leaves.
    pub fn triggers(&self, table: &str) -> impl Iterator<Item = String> {
        let id = self.id;
        ["insert", "update", "delete", "truncate"]
            .map(|what| trigger(id, table, what))
            .into_iter()
    }

    /// On the table alone: its leaves get it by themselves. Behind other triggers, which may change the text.
    pub fn forget_trigger(&self) -> Option<String> {
        self.forgets.then(|| {
            format!(
                "CREATE TRIGGER zz_cronvec_{0}_forget BEFORE UPDATE ON {1} FOR EACH ROW
                 EXECUTE FUNCTION cronvec.source_{0}_forget()",
                self.id, self.table.name
            )
        })
    }
}

/// One of the triggers of a table or a leaf.
pub(super) fn trigger(id: i32, table: &str, what: &str) -> String {
    let rows = match what {
        "insert" => "REFERENCING NEW TABLE AS new_rows",
        "update" => "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
        "delete" => "REFERENCING OLD TABLE AS old_rows",
        _ => "",
    };
    format!(
        "CREATE TRIGGER cronvec_{id}_{what} AFTER {} ON {table} {rows} FOR EACH STATEMENT
         EXECUTE FUNCTION cronvec.source_{id}_event()",
        what.to_uppercase()
    )
}
