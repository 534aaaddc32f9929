//! Owns what workers read of an attached table, as SQL: a page of its rows, rows by their ids, a count. Refuses to let one
//! row's error cost more than that row, if it is asked to go row by row.

use super::{Function, Plan, SETTINGS};

/// How rows are read. As the functions' last argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All at once: the first row that raises ends it.
    Fast = 0,
    /// Row by row: a row that raises is given with the reason.
    Careful = 1,
    /// Keys alone: for a row whose expressions take too long.
    Blind = 2,
}

impl Plan<'_> {
    /// A row's id: its key as text, of several columns the JSON array of them. Values that are equal have one text.
    pub(super) fn id_of(&self, row: &str) -> String {
        let text = |column: &super::Column| match column.base.as_str() {
            "numeric" => format!("trim_scale({row}.{})::text", column.quoted),
            _ => format!("{row}.{}::text", column.quoted),
        };
        match self.key.as_slice() {
            [only] if ["text", "varchar", "bpchar"].contains(&only.base.as_str()) => {
                format!("cronvec.id_of_key({})", text(only))
            }
            [only] => text(only),
            several => {
                let parts: Vec<String> = several.iter().map(text).collect();
                format!("cronvec.id_of_key(json_build_array({})::text)", parts.join(", "))
            }
        }
    }

    /// Where the row `t` is the one that `i.id` names. Ids that no key can have find none, and raise nothing.
    pub(super) fn is_named(&self) -> String {
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

    pub(super) fn named_ids(&self, ids: &str) -> String {
        if self.key.len() > 1 {
            format!(
                "(SELECT u.id, cronvec.key_parts(u.id, {}) AS parts FROM unnest({ids}) AS u (id)) AS i",
                self.key.len()
            )
        } else {
            format!("unnest({ids}) AS i (id)")
        }
    }

    /// The table's name now, inside of functions.
    fn table_now(&self) -> String {
        format!("cronvec.table_of({})::text", self.id)
    }

    /// A statement whose table is looked up when it runs. Its text is quoted as a whole.
    pub(super) fn with_table_now(&self, sql: &str) -> String {
        let mut tag = "$sql$".to_owned();
        while sql.contains(&tag) {
            tag = tag.replace("sql", "sql_");
        }
        format!("replace({tag}{sql}{tag}, '@table@', {})", self.table_now())
    }

    /// What is read of rows `t`.
    fn columns_of_row(&self, vector_parameter: &str) -> String {
        let vector = match &self.embedding_column {
            Some(column) => format!("t.{}", column.quoted),
            // Passed on: the owner may have no rights on the schema of its type.
            None => vector_parameter.to_owned(),
        };
        let key: Vec<String> = self.key.iter().map(|c| format!("t.{}::text", c.quoted)).collect();
        format!(
            "ARRAY[{}], {}, p.passes, CASE WHEN p.passes THEN {} END, CASE WHEN p.passes THEN {} END, {vector},
                NULL::text, NULL::text, t.cronvec_found",
            key.join(", "),
            self.id_of("t"),
            self.text.of(self.id, "t"),
            self.metadata_of("t"),
        )
    }

    /// Of some rows, found by a statement with these parameters, those whose texts have `max_bytes` together, but the first in
    /// any case.
    fn read(&self, rows: &str, parameters: &str) -> String {
        let given = parameters.split(", ").count();
        let fast = format!(
            "SELECT {}
             FROM (SELECT t.*, sum(t.cronvec_size) OVER (ROWS UNBOUNDED PRECEDING) AS cronvec_so_far,
                 count(*) OVER () AS cronvec_found FROM ({rows}) AS t) AS t
             CROSS JOIN LATERAL (SELECT coalesce({}, false)) AS p (passes)
             WHERE t.cronvec_so_far - t.cronvec_size < ${} OR t.cronvec_so_far = t.cronvec_size",
            self.columns_of_row(&format!("${}", given + 2)),
            self.passes("t"),
            given + 1
        );
        let key: Vec<String> = self.key.iter().map(|c| format!("t.{}::text", c.quoted)).collect();
        let keys = format!(
            "SELECT ARRAY[{}] AS place, {} AS id, t.cronvec_size AS size FROM ({rows}) AS t",
            key.join(", "),
            self.id_of("t")
        );
        let place: Vec<String> = (1..)
            .zip(&self.key)
            .map(|(nth, column)| format!("t.{} = $1[{nth}]::{}", column.quoted, column.base))
            .collect();
        let alone = format!(
            "SELECT {} FROM (SELECT t.*, NULL::bigint AS cronvec_found FROM @table@ AS t WHERE {} LIMIT 1) AS t
             CROSS JOIN LATERAL (SELECT coalesce({}, false)) AS p (passes)",
            self.columns_of_row("$2"),
            place.join(" AND "),
            self.passes("t")
        );
        format!(
            "IF mode = 0 THEN
        RETURN QUERY EXECUTE {fast} USING {parameters}, max_bytes, vector;
        RETURN;
    END IF;
    FOR one IN EXECUTE {keys} USING {parameters} LOOP
        BEGIN
            IF mode = 2 THEN
                RAISE EXCEPTION 'reading the row takes too long';
            END IF;
            RETURN QUERY EXECUTE {alone} USING one.place, vector;
        EXCEPTION WHEN OTHERS THEN
            place := one.place;
            id := one.id;
            passes := true;
            reason := CASE mode WHEN 2 THEN 'too_slow' ELSE 'unreadable' END;
            message := SQLERRM;
            state := SQLSTATE;
            failed := failed + 1;
            RETURN NEXT;
        END;
        rows_read := rows_read + 1;
        bytes_read := bytes_read + one.size;
        EXIT WHEN bytes_read >= max_bytes;
    END LOOP;
    -- What fails for each row alike is the expression's fault, or the table's.
    IF failed = rows_read AND state LIKE '42%' THEN
        RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message;
    END IF;",
            fast = self.with_table_now(&fast),
            keys = self.with_table_now(&keys),
            alone = self.with_table_now(&alone),
        )
    }

    /// `found` is how many rows there were before some were left out for their bytes; not known where they are read one by one.
    fn read_function(&self, name: &str, arguments: &str, reads: &str) -> Function {
        let columns = format!(
            "RETURNS TABLE (place text[], id text, passes boolean, content text, metadata jsonb, vector {}, reason text, message text,
    found bigint)
    LANGUAGE plpgsql STABLE {SETTINGS}",
            self.vector
        );
        let body = format!(
            "DECLARE
    one record;
    failed int := 0;
    rows_read int := 0;
    bytes_read bigint := 0;
    state text := '';
BEGIN
    {reads}
END"
        );
        let arguments = format!("{arguments}, max_bytes bigint, mode int");
        self.of_workers(name, &arguments, &columns, &body)
    }

    /// A page of the table's rows, along the key.
    pub(super) fn page(&self) -> Function {
        let place: Vec<String> = (1..)
            .zip(&self.key)
            .map(|(nth, column)| format!("$1[{nth}]::{}", column.base))
            .collect();
        let page = |condition: &str| {
            let rows = format!(
                "SELECT t.*, {} AS cronvec_size FROM @table@ AS t {condition} ORDER BY {} LIMIT $2",
                self.size("t"),
                self.keys("t")
            );
            self.read(&rows, "after, max_rows")
        };
        let reads = format!(
            "IF after IS NULL THEN
    {}
    ELSE
    {}
    END IF;",
            page(""),
            page(&format!("WHERE ({}) > ({})", self.keys("t"), place.join(", ")))
        );
        self.read_function("page", "after text[], max_rows int", &reads)
    }

    /// The rows of these ids, in their order.
    pub(super) fn named(&self) -> Function {
        let rows = format!(
            "SELECT t.*, {} AS cronvec_size FROM {} CROSS JOIN LATERAL (SELECT * FROM @table@ AS t WHERE {} LIMIT 1) AS t",
            self.size("t"),
            self.named_ids("$1"),
            self.is_named()
        );
        self.read_function("named", "ids text[]", &self.read(&rows, "ids"))
    }

    /// Whether the table has the name that it had when this was made, or isn't attached yet. Then its statements are planned
    /// once a session.
    pub(super) fn has_its_name(&self) -> String {
        let name = self.table.name.replace('\'', "''");
        format!("coalesce({}, '{name}') = '{name}'", self.table_now())
    }

    /// A query of these ids, by the table's name as long as it has it.
    pub(super) fn in_place(&self, sql: &str) -> String {
        let fixed = sql.replace("@table@", &self.table.name).replace("$1", "ids");
        format!(
            "IF {} THEN
        RETURN QUERY {fixed};
    ELSE
        RETURN QUERY EXECUTE {} USING ids;
    END IF;",
            self.has_its_name(),
            self.with_table_now(sql)
        )
    }

    /// Which of these ids have a row that is a record.
    pub fn there(&self) -> Function {
        let sql = format!(
            "SELECT i.id FROM {} CROSS JOIN LATERAL (SELECT FROM @table@ AS t WHERE {} AND {} LIMIT 1) AS t",
            self.named_ids("$1"),
            self.is_named(),
            self.passes("t")
        );
        let body = format!("BEGIN\n    {}\nEND", self.in_place(&sql));
        let rest = format!("RETURNS SETOF text LANGUAGE plpgsql STABLE {SETTINGS}");
        self.of_workers("there", "ids text[]", &rest, &body)
    }

    pub(super) fn count(&self) -> Function {
        let sql = format!("SELECT count(*) FROM @table@ AS t WHERE {}", self.passes("t"));
        let body = format!(
            "DECLARE
    counted bigint;
BEGIN
    EXECUTE {} INTO counted;
    RETURN counted;
END",
            self.with_table_now(&sql)
        );
        let rest = format!("RETURNS bigint LANGUAGE plpgsql STABLE {SETTINGS}");
        self.of_workers("count", "", &rest, &body)
    }
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
        "numeric" => {
            format!("CASE WHEN {text} ~ '^(-?[0-9]+(\\.[0-9]+)?|NaN|-?Infinity)$' THEN {text}::numeric END")
        }
        "date" | "timestamp" | "timestamptz" => format!("cronvec.instant({text})::{base}"),
        base => format!("{text}::{base}"),
    }
}
