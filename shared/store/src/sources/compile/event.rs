//! Owns what a statement on an attached table runs, as SQL: how it finds out which rows changed, and what it hands on.
//! Refuses to fail that statement.

use super::super::table::Column;
use super::{Function, Plan, SETTINGS};

/// Rows of one statement whose texts are copied; of a larger one they are only named.
const ROWS_COPIED: u32 = 2000;
/// Bytes of their columns, likewise.
const BYTES_COPIED: u32 = 16_000_000;
/// A row with more than that is named in any case.
const BYTES_OF_ROW: u32 = 1_000_000;
/// Names that are handed on at a time.
const NAMES: u32 = 10_000;

/// Types of which no two values are equal but have other texts.
const EXACT: [&str; 8] = [
    "int2",
    "int4",
    "int8",
    "bool",
    "uuid",
    "date",
    "timestamp",
    "timestamptz",
];

impl Plan<'_> {
    /// The write into our tables. It belongs to the schema's owner, and only the table's owner may call it.
    pub(super) fn take(&self) -> Function {
        self.function(
            "take",
            "ids text[], contents text[], metadatas jsonb[], gone text[], named text[]",
            "RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp",
            &format!(
                "BEGIN
    IF named IS NOT NULL THEN
        PERFORM cronvec.note_rows({0}, named, NULL);
    END IF;
    IF ids IS NOT NULL OR gone IS NOT NULL THEN
        PERFORM cronvec.take_rows({0}, ids, contents, metadatas, gone);
    END IF;
END",
                self.project_id
            ),
            false,
        )
    }

    pub(super) fn truncated(&self) -> Function {
        self.function(
            "truncated",
            "emptied oid",
            "RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp",
            &format!(
                "BEGIN INSERT INTO cronvec.source_truncated VALUES ({}, emptied, nextval('cronvec.acceptance')); END",
                self.id
            ),
            false,
        )
    }

    /// Columns that a record is made of.
    fn used(&self) -> Vec<&Column> {
        let mut used: Vec<&Column> = Vec::new();
        let expressions = [Some(&self.text), self.metadata.as_ref(), self.filter.as_ref()];
        for column in expressions
            .into_iter()
            .flatten()
            .flat_map(|expression| &expression.columns)
        {
            if used.iter().all(|known| known.name != column.name) {
                used.push(column);
            }
        }
        used
    }

    /// About how many bytes the texts of a row have; no long value is read for it.
    pub(super) fn size(&self, row: &str) -> String {
        let sizes: Vec<String> = self
            .used()
            .iter()
            .map(|column| match column.base.as_str() {
                "text" | "varchar" | "bytea" => format!("coalesce(octet_length({row}.{}), 0)", column.quoted),
                _ => format!("coalesce(pg_column_size({row}.{}), 0)", column.quoted),
            })
            .collect();
        if sizes.is_empty() {
            return "0".into();
        }
        sizes.join(" + ")
    }

    /// Whether a value of the row `t` is another than that of `o`. Where both are the same value out of line, nothing is read.
    fn unless_same_place(&self, column: &Column, differs: String) -> String {
        if !self.knows_places || EXACT.contains(&column.base.as_str()) {
            return differs;
        }
        format!(
            "CASE WHEN pg_column_toast_chunk_id(t.{0}) = pg_column_toast_chunk_id(o.{0}) THEN false ELSE {differs} END",
            column.quoted
        )
    }

    fn has_changed(&self) -> String {
        let mut changed = vec![format!("{} <> {}", self.id_of("t"), self.id_of("o"))];
        changed.extend(self.used().iter().map(|column| {
            let differs = if EXACT.contains(&column.base.as_str()) {
                format!("t.{0} IS DISTINCT FROM o.{0}", column.quoted)
            } else {
                // Values may be equal and have other texts: 1.0 and 1.00, or citext's.
                format!(
                    "t.{0}::text COLLATE \"C\" IS DISTINCT FROM o.{0}::text COLLATE \"C\"",
                    column.quoted
                )
            };
            self.unless_same_place(column, differs)
        }));
        changed.join(" OR ")
    }

    /// Rows whose vector was written by somebody else than us.
    fn column_was_written(&self) -> Option<String> {
        let column = self.embedding_column.as_ref()?;
        let differs = format!(
            "((t.{0} IS NULL) <> (o.{0} IS NULL) OR NOT cronvec.same_vector(t.{0}, o.{0}))",
            column.quoted
        );
        let differs = self.unless_same_place(column, differs);
        // What our own trigger empties waits for its text anyway.
        Some(if self.forgets {
            format!("(t.{} IS NOT NULL AND {differs})", column.quoted)
        } else {
            differs
        })
    }

    /// What each statement on the table runs, once, with all of its rows.
    ///
    /// Whatever may go wrong stands in blocks that write nothing: such a block is no subtransaction with a number of its
    /// own, of which a transaction has 64 before the whole server pays for them.
    pub(super) fn event(&self) -> Function {
        let same: Vec<String> = self.key.iter().map(|c| format!("t.{0} = o.{0}", c.quoted)).collect();
        let body = TEMPLATE
            .replace("@name_inserted@", &name_all("named", "@new_id@", "FROM new_rows AS t"))
            .replace(
                "@name_updated@",
                &name_all("named", "@new_id@", "@updated@ OR (checks AND @written@)"),
            )
            .replace("@name_left@", &name_all("gone", "@old_id@", "@left@"))
            .replace("@name_deleted@", &name_all("gone", "@old_id@", "FROM old_rows AS o"))
            .replace("@updated@", UPDATED)
            .replace("@left@", LEFT)
            .replace("@id@", &self.id.to_string())
            .replace("@rows@", &ROWS_COPIED.to_string())
            .replace("@bytes@", &BYTES_COPIED.to_string())
            .replace("@row_bytes@", &BYTES_OF_ROW.to_string())
            .replace(
                "@first_key@",
                &self.key.first().map_or(String::new(), |c| c.quoted.clone()),
            )
            .replace("@same@", &same.join(" AND "))
            .replace("@size@", &self.size("t"))
            .replace("@new_id@", &self.id_of("t"))
            .replace("@old_id@", &self.id_of("o"))
            .replace("@one_id@", &self.id_of("one"))
            .replace("@new_passes@", &self.passes("t"))
            .replace("@one_passes@", &self.passes("one"))
            .replace("@new_text@", &self.text.of(self.id, "t"))
            .replace("@one_text@", &self.text.of(self.id, "one"))
            .replace("@new_metadata@", &self.metadata_of("t"))
            .replace("@one_metadata@", &self.metadata_of("one"))
            .replace("@changed@", &self.has_changed())
            .replace(
                "@written@",
                &self.column_was_written().unwrap_or_else(|| "false".into()),
            )
            .replace("@checks@", &self.embedding_column.is_some().to_string());
        let rest = format!("RETURNS trigger LANGUAGE plpgsql {SETTINGS}");
        self.function("event", "", &rest, &body, true)
    }
}

/// Rows of an UPDATE that are others than before.
const UPDATED: &str = "FROM new_rows AS t LEFT JOIN old_rows AS o ON @same@ WHERE (o.@first_key@ IS NULL OR @changed@)";

/// Those that have no new row of their key.
const LEFT: &str =
    "FROM old_rows AS o WHERE NOT EXISTS (SELECT FROM new_rows AS t WHERE @same@ AND @new_id@ = @old_id@)";

/// Hands the ids of rows on as `named` or as `gone`, some at a time.
fn name_all(list: &str, id: &str, rows: &str) -> String {
    let arguments = match list {
        "named" => "NULL, NULL, NULL, NULL, named",
        _ => "NULL, NULL, NULL, gone, NULL",
    };
    format!(
        "FOR one IN SELECT {id} AS id {rows} LOOP
            {list} := array_append({list}, one.id);
            IF cardinality({list}) = {NAMES} THEN
                PERFORM cronvec.source_@id@_take({arguments});
                {list} := NULL;
            END IF;
        END LOOP;
        PERFORM cronvec.source_@id@_take({arguments}) WHERE {list} IS NOT NULL;"
    )
}

/// `t` is a new row, `o` an old one, `one` a row of a loop.
const TEMPLATE: &str = "DECLARE
    ids text[];
    contents text[];
    metadatas jsonb[];
    gone text[];
    named text[];
    is_large boolean;
    -- Somebody else than us may have written the vectors.
    checks boolean := @checks@;
    called_by text;
    content text;
    metadata jsonb;
    problem text;
    one record;
BEGIN
    BEGIN
        IF NOT cronvec.follows_table(@id@, TG_RELID) THEN
            RETURN NULL;
        END IF;
        IF NOT has_function_privilege('cronvec.source_@id@_take(text[], text[], jsonb[], text[], text[])', 'EXECUTE')
            OR NOT has_function_privilege('cronvec.source_@id@_truncated(oid)', 'EXECUTE') THEN
            RAISE EXCEPTION 'permission denied: % may not call cronvec.source_@id@_take', current_user;
        END IF;
        IF TG_OP IN ('INSERT', 'UPDATE') THEN
            SELECT count(*) > @rows@ OR coalesce(sum(s.size), 0) > @bytes@ INTO is_large
                FROM (SELECT @size@ AS size FROM new_rows AS t LIMIT @rows@ + 1) AS s;
        END IF;
        IF TG_OP = 'INSERT' THEN
            IF is_large THEN
                PERFORM @new_id@ FROM new_rows AS t LIMIT 0;
            ELSE
                SELECT array_agg(n.id) FILTER (WHERE n.is_small), array_agg(n.content) FILTER (WHERE n.is_small),
                    array_agg(n.metadata) FILTER (WHERE n.is_small), array_agg(n.id) FILTER (WHERE NOT n.is_small)
                    INTO ids, contents, metadatas, named
                    FROM (
                        SELECT @new_id@ AS id, s.is_small, CASE WHEN s.is_small THEN @new_text@ END AS content,
                            CASE WHEN s.is_small THEN @new_metadata@ END AS metadata
                        FROM new_rows AS t CROSS JOIN LATERAL (SELECT @size@ <= @row_bytes@) AS s (is_small)
                        WHERE @new_passes@
                    ) AS n;
            END IF;
        ELSIF TG_OP = 'UPDATE' THEN
            IF checks THEN
                GET DIAGNOSTICS called_by = PG_CONTEXT;
                checks := called_by !~ E'\\nPL/pgSQL function cronvec\\\\.source_@id@_set\\\\(';
            END IF;
            IF is_large THEN
                PERFORM @new_id@ @updated@ OR (checks AND @written@) LIMIT 0;
            ELSE
                SELECT array_agg(n.id) FILTER (WHERE n.passes AND n.is_small),
                    array_agg(n.content) FILTER (WHERE n.passes AND n.is_small),
                    array_agg(n.metadata) FILTER (WHERE n.passes AND n.is_small),
                    array_agg(n.id) FILTER (WHERE NOT n.passes), array_agg(n.id) FILTER (WHERE n.passes AND NOT n.is_small)
                    INTO ids, contents, metadatas, gone, named
                    FROM (
                        SELECT @new_id@ AS id, s.is_small, p.passes,
                            CASE WHEN p.passes AND s.is_small THEN @new_text@ END AS content,
                            CASE WHEN p.passes AND s.is_small THEN @new_metadata@ END AS metadata
                        FROM (SELECT t.* @updated@) AS t
                        CROSS JOIN LATERAL (SELECT @size@ <= @row_bytes@) AS s (is_small)
                        CROSS JOIN LATERAL (SELECT coalesce(@new_passes@, false)) AS p (passes)
                    ) AS n;
                SELECT gone || array_agg(@old_id@) INTO gone @left@;
                IF checks THEN
                    SELECT named || array_agg(@new_id@) INTO named FROM new_rows AS t JOIN old_rows AS o ON @same@
                        WHERE @written@;
                END IF;
            END IF;
        ELSIF TG_OP = 'DELETE' THEN
            SELECT count(*) > @rows@ INTO is_large FROM (SELECT FROM old_rows LIMIT @rows@ + 1) AS s;
            IF is_large THEN
                PERFORM @old_id@ FROM old_rows AS o LIMIT 0;
            ELSE
                SELECT array_agg(@old_id@) INTO gone FROM old_rows AS o;
            END IF;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        problem := SQLERRM;
        is_large := coalesce(is_large, true);
    END;
    IF problem IS NOT NULL AND NOT is_large AND TG_OP IN ('INSERT', 'UPDATE') THEN
        -- Some row raises. It is named, and whoever reads it says why.
        BEGIN
            ids := NULL; contents := NULL; metadatas := NULL; gone := NULL; named := NULL;
            FOR one IN SELECT * FROM new_rows LOOP
                BEGIN
                    IF coalesce(@one_passes@, false) THEN
                        content := @one_text@;
                        metadata := @one_metadata@;
                        ids := array_append(ids, @one_id@);
                        contents := array_append(contents, content);
                        metadatas := array_append(metadatas, metadata);
                    ELSE
                        gone := array_append(gone, @one_id@);
                    END IF;
                EXCEPTION WHEN OTHERS THEN
                    named := array_append(named, @one_id@);
                END;
            END LOOP;
            IF TG_OP = 'UPDATE' THEN
                SELECT gone || array_agg(@old_id@) INTO gone @left@;
            END IF;
            problem := NULL;
        EXCEPTION WHEN OTHERS THEN
            problem := SQLERRM;
        END;
    END IF;
    IF problem IS NOT NULL THEN
        RAISE WARNING 'cronvec did not note this % of %; the next reconcile finds it: %', TG_OP, TG_RELID::regclass, problem;
        RETURN NULL;
    END IF;

    IF TG_OP = 'TRUNCATE' THEN
        PERFORM cronvec.source_@id@_truncated(TG_RELID);
        RETURN NULL;
    END IF;
    IF NOT is_large THEN
        PERFORM cronvec.source_@id@_take(ids, contents, metadatas, gone, named)
            WHERE ids IS NOT NULL OR gone IS NOT NULL OR named IS NOT NULL;
    ELSIF TG_OP = 'INSERT' THEN
        @name_inserted@
    ELSIF TG_OP = 'UPDATE' THEN
        @name_updated@
        @name_left@
    ELSE
        @name_deleted@
    END IF;
    RETURN NULL;
END";
