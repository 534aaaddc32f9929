//! Owns the functions and triggers of one attached table, as SQL. Refuses to put anything into it that the server hasn't
//! quoted; what users wrote is inside the functions of `expression`.

use super::expression::Expression;
use super::table::{Column, Table};

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

    /// A row's id: its key as text, of several columns the JSON array of them.
    fn id_of(&self, row: &str) -> String {
        match self.key.as_slice() {
            [only] => format!("{row}.{}::text", only.quoted),
            several => {
                let parts: Vec<String> = several.iter().map(|c| format!("{row}.{}::text", c.quoted)).collect();
                format!("json_build_array({})::text", parts.join(", "))
            }
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

    /// Where the row `t` is the one that `i.id` names. Ids that no key can have find none, and raise nothing.
    fn is_named(&self) -> String {
        let several = self.key.len() > 1;
        let found: Vec<String> = (1..)
            .zip(&self.key)
            .map(|(nth, column)| {
                let part = if several {
                    format!("i.parts[{nth}]")
                } else {
                    "i.id".into()
                };
                format!("t.{} = {}", column.quoted, from_text(&column.base, &part))
            })
            .collect();
        format!("{} AND {} = i.id", found.join(" AND "), self.id_of("t"))
    }

    fn named(&self) -> String {
        if self.key.len() > 1 {
            format!(
                "(SELECT u.id, cronvec.key_parts(u.id, {}) AS parts FROM unnest(ids) AS u (id)) AS i",
                self.key.len()
            )
        } else {
            "unnest(ids) AS i (id)".into()
        }
    }

    pub fn functions(&self) -> Vec<Function> {
        let mut all = vec![
            self.take(),
            self.truncated(),
            self.event(),
            self.rows(),
            self.named_rows(),
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

    fn take(&self) -> Function {
        self.function(
            "take",
            "ids text[], contents text[], metadatas jsonb[], gone text[]",
            "RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp",
            &format!(
                "BEGIN PERFORM cronvec.take_rows({}, ids, contents, metadatas, gone); END",
                self.project_id
            ),
            false,
        )
    }

    fn truncated(&self) -> Function {
        self.function(
            "truncated",
            "emptied oid",
            "RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp",
            &format!(
                "BEGIN
    UPDATE cronvec.sources SET phase = 'rows', place = NULL, rows_seen = 0, gone = 0,
        epoch = CASE WHEN relation = emptied THEN nextval('cronvec.acceptance') ELSE epoch END,
        allow_deletes = allow_deletes OR relation <> emptied
    WHERE id = {};
END",
                self.id
            ),
            false,
        )
    }

    /// What each statement on the table runs, once, with all of its rows. It may fail the statement only by a
    /// cancellation: everything else is a warning, and the next pass of reconcile finds the rows.
    fn event(&self) -> Function {
        let row = |from: &str| {
            format!(
                "SELECT {}, {} AS cronvec_id, {} AS cronvec_text, {} AS cronvec_metadata FROM {from} AS t WHERE {}",
                self.keys("t"),
                self.id_of("t"),
                self.text.of(self.id, "t"),
                self.metadata_of("t"),
                self.passes("t")
            )
        };
        let same: Vec<String> = self.key.iter().map(|c| format!("n.{0} = o.{0}", c.quoted)).collect();
        let body = format!(
            "DECLARE
    ids text[];
    contents text[];
    metadatas jsonb[];
    gone text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(n.cronvec_id), array_agg(n.cronvec_text), array_agg(n.cronvec_metadata)
            INTO ids, contents, metadatas FROM ({new}) AS n;
    ELSIF TG_OP = 'UPDATE' THEN
        SELECT array_agg(n.cronvec_id) FILTER (WHERE n.cronvec_id IS NOT NULL),
            array_agg(n.cronvec_text) FILTER (WHERE n.cronvec_id IS NOT NULL),
            array_agg(n.cronvec_metadata) FILTER (WHERE n.cronvec_id IS NOT NULL),
            array_agg(o.cronvec_id) FILTER (WHERE n.cronvec_id IS NULL)
            INTO ids, contents, metadatas, gone
            FROM ({new}) AS n FULL JOIN ({old}) AS o ON {same}
            WHERE n.cronvec_text IS DISTINCT FROM o.cronvec_text
                OR n.cronvec_metadata IS DISTINCT FROM o.cronvec_metadata
                OR n.cronvec_id IS NULL OR o.cronvec_id IS NULL;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg({old_id}) INTO gone FROM old_rows AS t;
    ELSE
        PERFORM cronvec.source_{id}_truncated(TG_RELID);
    END IF;
    IF ids IS NOT NULL OR gone IS NOT NULL THEN
        PERFORM cronvec.source_{id}_take(ids, contents, metadatas, gone);
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'cronvec did not note this % of %; the next reconcile finds it: %', TG_OP, TG_RELID::regclass, SQLERRM;
    RETURN NULL;
END",
            new = row("new_rows"),
            old = row("old_rows"),
            old_id = self.id_of("t"),
            same = same.join(" AND "),
            id = self.id,
        );
        // Less than PostgreSQL's `deadlock_timeout`: should we ever stand in a circle, we leave it before anyone looks.
        let rest = format!("RETURNS trigger LANGUAGE plpgsql SET lock_timeout = '500ms' {SETTINGS}");
        self.function("event", "", &rest, &body, true)
    }

    /// What is read of rows `t`, the same for a page and for some that are named. A row without a column for vectors has
    /// the result's own empty `vector`: the owner may have no rights on the schema of that type.
    fn read(&self, function: &str, from: &str) -> String {
        let key: Vec<String> = self.key.iter().map(|c| format!("t.{}::text", c.quoted)).collect();
        let vector = match &self.embedding_column {
            Some(column) => format!("t.{}", column.quoted),
            None => format!("source_{}_{function}.vector", self.id),
        };
        format!(
            "RETURN QUERY SELECT ARRAY[{}], {}, p.passes, CASE WHEN p.passes THEN {} END,
            CASE WHEN p.passes THEN {} END, {vector}
            FROM {from}
            CROSS JOIN LATERAL (SELECT coalesce({}, false)) AS p (passes);",
            key.join(", "),
            self.id_of("t"),
            self.text.of(self.id, "t"),
            self.metadata_of("t"),
            self.passes("t"),
        )
    }

    fn read_columns(&self) -> String {
        format!(
            "RETURNS TABLE (place text[], id text, passes boolean, content text, metadata jsonb, vector {})
    LANGUAGE plpgsql STABLE {SETTINGS} SET plan_cache_mode = force_custom_plan",
            self.vector
        )
    }

    /// A page of the table's rows, along the key.
    fn rows(&self) -> Function {
        let place: Vec<String> = (1..)
            .zip(&self.key)
            .map(|(nth, column)| format!("after[{nth}]::{}", column.base))
            .collect();
        let page = |condition: &str| {
            let from = format!(
                "(SELECT * FROM {} AS t {condition} ORDER BY {} LIMIT max_rows) AS t",
                self.table.name,
                self.keys("t")
            );
            self.read("rows", &from)
        };
        let body = format!(
            "BEGIN
    IF after IS NULL THEN
        {}
    ELSE
        {}
    END IF;
END",
            page(""),
            page(&format!("WHERE ({}) > ({})", self.keys("t"), place.join(", ")))
        );
        self.of_workers("rows", "after text[], max_rows int", &self.read_columns(), &body)
    }

    /// The rows of these ids.
    fn named_rows(&self) -> Function {
        let from = format!(
            "{} CROSS JOIN LATERAL (SELECT * FROM {} AS t WHERE {} LIMIT 1) AS t",
            self.named(),
            self.table.name,
            self.is_named()
        );
        let body = format!("BEGIN\n    {}\nEND", self.read("named", &from));
        self.of_workers("named", "ids text[]", &self.read_columns(), &body)
    }

    /// Which of these ids have a row that is a record.
    pub fn there(&self) -> Function {
        let body = format!(
            "BEGIN
    RETURN QUERY SELECT i.id FROM {} CROSS JOIN LATERAL (
        SELECT FROM {} AS t WHERE {} AND {} LIMIT 1) AS t;
END",
            self.named(),
            self.table.name,
            self.is_named(),
            self.passes("t")
        );
        let rest = format!("RETURNS SETOF text LANGUAGE plpgsql STABLE {SETTINGS}");
        self.of_workers("there", "ids text[]", &rest, &body)
    }

    fn count(&self) -> Function {
        let body = format!(
            "BEGIN RETURN (SELECT count(*) FROM {} AS t WHERE {}); END",
            self.table.name,
            self.passes("t")
        );
        let rest = format!("RETURNS bigint LANGUAGE plpgsql STABLE {SETTINGS}");
        self.of_workers("count", "", &rest, &body)
    }

    /// Locks the rows of these ids that nobody else holds; gives them, and those that have no row.
    fn lock(&self) -> Function {
        let body = format!(
            "BEGIN
    RETURN QUERY
        WITH mine AS MATERIALIZED (
            SELECT i.id FROM {named} CROSS JOIN LATERAL (
                SELECT FROM {table} AS t WHERE {is} LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS t
        )
        SELECT m.id FROM mine m
        UNION ALL
        SELECT i.id FROM {named} WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {is});
END",
            named = self.named(),
            table = self.table.name,
            is = self.is_named()
        );
        let rest = format!("RETURNS SETOF text LANGUAGE plpgsql VOLATILE {SETTINGS}");
        self.of_workers("lock", "ids text[]", &rest, &body)
    }

    /// Writes vectors into the table's own column, and nothing else of it. The rows are locked.
    fn set(&self, column: &Column) -> Function {
        let keys: Vec<String> = self.key.iter().map(|c| format!("k.{0} = u.{0}", c.quoted)).collect();
        let body = format!(
            "DECLARE
    written bigint;
BEGIN
    WITH named AS MATERIALIZED (
        SELECT i.id AS cronvec_id, t.* FROM {named} CROSS JOIN LATERAL (
            SELECT {keys} FROM {table} AS t WHERE {is} LIMIT 1) AS t
    )
    UPDATE {table} AS u SET {column} = v.vector
        FROM named AS k JOIN unnest(ids, vectors) AS v (id, vector) ON v.id = k.cronvec_id
        WHERE {same};
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END",
            named = self.named(),
            keys = self.keys("t"),
            table = self.table.name,
            is = self.is_named(),
            column = column.quoted,
            same = keys.join(" AND ")
        );
        let rest = format!("RETURNS bigint LANGUAGE plpgsql VOLATILE {SETTINGS}");
        self.of_workers("set", &format!("ids text[], vectors {}[]", self.vector), &rest, &body)
    }

    /// Empties the column when the text is another.
    fn forget(&self, column: &Column) -> Function {
        let body = format!(
            "BEGIN
    IF {} IS DISTINCT FROM {} THEN
        NEW.{} := NULL;
    END IF;
    RETURN NEW;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'cronvec could not compare the texts of a row of %: %', TG_RELID::regclass, SQLERRM;
    RETURN NEW;
END",
            self.text.of(self.id, "OLD"),
            self.text.of(self.id, "NEW"),
            column.quoted
        );
        let rest = format!("RETURNS trigger LANGUAGE plpgsql {SETTINGS}");
        self.function("forget", "", &rest, &body, true)
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
            let changed: Vec<String> = self
                .text
                .columns
                .iter()
                .map(|c| format!("OLD.{0}::text IS DISTINCT FROM NEW.{0}::text", c.quoted))
                .collect();
            let when = if changed.is_empty() {
                "true".into()
            } else {
                changed.join(" OR ")
            };
            format!(
                "CREATE TRIGGER zz_cronvec_{0}_forget BEFORE UPDATE ON {1} FOR EACH ROW WHEN ({when})
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

/// A key's part from text; null where it can't be one.
fn from_text(base: &str, text: &str) -> String {
    match base {
        "int2" | "int4" | "int8" => format!(
            "CASE WHEN {text} ~ '^-?[0-9]{{1,18}}$' THEN {text}::int8
                WHEN {text} ~ '^-?[0-9]{{19}}$' AND {text}::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN {text}::int8 END"
        ),
        "uuid" => format!(
            "CASE WHEN {text} ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN {text}::uuid END"
        ),
        "numeric" => format!("CASE WHEN {text} ~ '^-?[0-9]+(\\.[0-9]+)?$' THEN {text}::numeric END"),
        base => format!("{text}::{base}"),
    }
}
