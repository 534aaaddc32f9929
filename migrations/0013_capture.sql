-- What the triggers of attached tables note: of large statements, and of rows that somebody else holds, names alone.

-- Keys of rows that a large statement deleted. Searches, views and the API leave them out from the commit on; a tick deletes
-- their records. Nothing but inserts: a trigger that writes here waits for nobody, whatever the isolation level.
CREATE TABLE cronvec.source_gone (
    project_id int  NOT NULL,
    record_id  text NOT NULL
);
CREATE INDEX source_gone_record ON cronvec.source_gone (project_id, record_id);

-- Tables, or partitions of them, that were truncated. Records with a lower number went with them.
CREATE TABLE cronvec.source_truncated (
    source_id int    NOT NULL,
    emptied   oid    NOT NULL,
    number    bigint NOT NULL
);

-- step: transaction
ALTER TABLE cronvec.source_truncated ADD FOREIGN KEY (source_id) REFERENCES cronvec.sources ON DELETE CASCADE;

-- step: transaction
ALTER TABLE cronvec.sources
    -- Rows that one statement reads: fewer where that took too long.
    ADD COLUMN page_rows int NOT NULL DEFAULT 1000,
    -- Nothing of the table is read until then: the last time it failed.
    ADD COLUMN rests_until timestamptz,
    -- When what its triggers noted was last read; the next one's turn is that of the source that waited longest.
    ADD COLUMN noted_at timestamptz,
    -- Which functions its `attach` made; 0 are those of schemas up to 12.
    ADD COLUMN generation smallint NOT NULL DEFAULT 0,
    -- MAX_CONTENT_BYTES of the workers.
    ADD COLUMN max_content_bytes bigint NOT NULL DEFAULT 10000000;

-- step: transaction
-- The table that a source is about now: the one of its name, or, if none has that name any more, the one that had it.
CREATE FUNCTION cronvec.table_of(the_source int) RETURNS regclass
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(to_regclass(s.table_name), s.relation) FROM cronvec.sources s WHERE s.id = the_source;
$$;

-- Whether a statement on this table or partition is about the source. Triggers stay on a partition that was detached, and on
-- a table that another one has taken the name of: what is written to those is none of ours.
CREATE FUNCTION cronvec.follows_table(the_source int, the_table oid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM cronvec.sources s
        WHERE s.id = the_source AND coalesce(to_regclass(s.table_name), s.relation) = s.relation
            AND (s.relation = the_table
                OR EXISTS (SELECT FROM pg_partition_ancestors(the_table) AS a WHERE a.relid = s.relation)));
$$;

-- A record's id from a row's key. A key that can be none, because it is empty or too long, gets one under which the row is
-- quarantined.
CREATE FUNCTION cronvec.id_of_key(key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(key) BETWEEN 1 AND 1000 AND octet_length(key) <= 2000 THEN key ELSE left(key, 400) || '~' || md5(key) END;

CREATE FUNCTION cronvec.is_key(id text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN id <> '~' || md5('') AND (length(id) <> 433 OR id !~ '~[0-9a-f]{32}$');

-- A date or time from a record's id; null where it is none.
CREATE FUNCTION cronvec.instant(id text) RETURNS timestamptz
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
AS $$
BEGIN
    RETURN id::timestamptz;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;

CREATE FUNCTION cronvec.same_vector(one @vector_schema@.vector, other @vector_schema@.vector) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN one OPERATOR(@vector_schema@.=) other;

-- Owners of attached tables, as whom triggers run, need these, and they tell nothing that isn't known.
GRANT EXECUTE ON FUNCTION cronvec.table_of(int), cronvec.follows_table(int, oid), cronvec.id_of_key(text),
    cronvec.is_key(text), cronvec.instant(text), cronvec.same_vector(@vector_schema@.vector, @vector_schema@.vector) TO PUBLIC;

-- Rows that were noted as gone are there again. What a tick is reading right now is left to it.
CREATE FUNCTION cronvec.are_back(the_project int, ids text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM source_gone g WHERE g.project_id = the_project) THEN
        DELETE FROM source_gone g WHERE g.ctid = ANY (ARRAY(
            SELECT x.ctid FROM source_gone x WHERE x.project_id = the_project AND x.record_id = ANY (ids)
            FOR UPDATE SKIP LOCKED));
    END IF;
END
$$;

-- Names rows that are to be read: those that are there, and those that are gone.
CREATE FUNCTION cronvec.note_rows(the_project int, ids text[], gone text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
BEGIN
    IF cardinality(ids) > 0 THEN
        INSERT INTO source_notes (source_id, ids)
            SELECT s.id, i.ids FROM sources s, (
                SELECT array_agg(u.id) AS ids FROM unnest(ids) WITH ORDINALITY AS u (id, nth) GROUP BY (u.nth - 1) / 1000
            ) AS i
            WHERE s.project_id = the_project;
        IF current_setting('transaction_isolation') = 'read committed' THEN
            PERFORM are_back(the_project, ids);
        END IF;
    END IF;
    IF cardinality(gone) > 0 THEN
        INSERT INTO source_gone (project_id, record_id) SELECT the_project, u.id FROM unnest(gone) AS u (id);
    END IF;
END
$$;

-- Rows that are no records are quarantined, so that coverage says where they are. Their records, if they have any, stay.
CREATE FUNCTION cronvec.set_aside(the_project int, ids text[], reasons text[], messages text[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
    INSERT INTO cronvec.quarantined_records (space_id, project_id, record_id, content_hash, reason, message, attempts)
        SELECT s.space_id, the_project, i.id, '', i.reason, i.message, 0
        FROM cronvec.projects, unnest(ARRAY[live_space, next_space]) AS s (space_id),
            unnest(ids, reasons, messages) AS i (id, reason, message)
        WHERE projects.id = the_project AND s.space_id IS NOT NULL
        ORDER BY i.id, s.space_id
        ON CONFLICT ON CONSTRAINT quarantined_records_pkey DO UPDATE SET
            content_hash = excluded.content_hash, reason = excluded.reason, message = excluded.message;
$$;

CREATE OR REPLACE FUNCTION cronvec.set_aside_blank(the_project int, ids text[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
    SELECT cronvec.set_aside(the_project, array_agg(i.id),
        array_agg(CASE WHEN cronvec.is_key(i.id) THEN 'no_text' ELSE 'no_id' END),
        array_agg(CASE WHEN cronvec.is_key(i.id) THEN 'the row has no text'
            ELSE 'the key of the row is empty or has more than 1000 characters, so it can be no record''s id' END))
    FROM unnest(ids) AS i (id) HAVING count(*) > 0;
$$;

-- The one write that triggers make: rows that are new or changed, and keys that are gone. A text may be blank. It waits for
-- nobody: what somebody else holds is named, as all is of large statements, and where a snapshot is older than the statement
-- (REPEATABLE READ, SERIALIZABLE), since a record that was written meanwhile would fail it.
CREATE OR REPLACE FUNCTION cronvec.take_rows(the_project int, ids text[], contents text[], metadatas jsonb[], gone text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    known text[];
    mine text[];
    held text[];
    blank text[];
BEGIN
    IF cardinality(ids) > 2000 OR cardinality(gone) > 2000
        OR current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        PERFORM note_rows(the_project, ids, gone);
        RETURN;
    END IF;
    SELECT array_agg(i.id), array_agg(i.id) FILTER (WHERE r.is_mine) INTO known, mine
        FROM (SELECT u.id FROM unnest(ids || gone) AS u (id) ORDER BY u.id) AS i
        CROSS JOIN LATERAL (
            SELECT EXISTS (
                SELECT FROM (
                    SELECT FROM records l WHERE l.project_id = the_project AND l.id = r.id FOR NO KEY UPDATE SKIP LOCKED) AS l
            ) AS is_mine
            FROM records r WHERE r.project_id = the_project AND r.id = i.id LIMIT 1) AS r;
    IF cardinality(known) > coalesce(cardinality(mine), 0) THEN
        held := ARRAY(SELECT k.id FROM unnest(known) AS k (id) WHERE mine IS NULL OR k.id <> ALL (mine));
        PERFORM note_rows(the_project, ARRAY(SELECT i.id FROM unnest(ids) AS i (id) WHERE i.id = ANY (held)),
            ARRAY(SELECT g.id FROM unnest(gone) AS g (id) WHERE g.id = ANY (held)));
        SELECT array_agg(i.id), array_agg(i.content), array_agg(i.metadata) INTO ids, contents, metadatas
            FROM unnest(ids, contents, metadatas) AS i (id, content, metadata) WHERE i.id <> ALL (held);
        gone := ARRAY(SELECT g.id FROM unnest(gone) AS g (id) WHERE g.id <> ALL (held));
    END IF;
    IF cardinality(ids) > 0 THEN
        PERFORM are_back(the_project, ids);
        SELECT array_agg(i.id) INTO blank FROM unnest(ids, contents) AS i (id, content)
            WHERE i.content IS NULL OR btrim(i.content, E' \t\n\r') = '' OR NOT is_key(i.id);
        IF blank IS NULL THEN
            PERFORM put_records(the_project, ids, contents, metadatas);
        ELSE
            PERFORM put_records(the_project, array_agg(i.id), array_agg(i.content), array_agg(i.metadata))
                FROM unnest(ids, contents, metadatas) AS i (id, content, metadata)
                WHERE i.id <> ALL (blank) HAVING count(*) > 0;
            gone := gone || blank;
        END IF;
        IF EXISTS (SELECT FROM quarantined_records q WHERE q.project_id = the_project) THEN
            -- What the row was quarantined for, and not its text.
            DELETE FROM quarantined_records q
                WHERE q.project_id = the_project AND q.record_id = ANY (ids) AND q.content_hash = '';
        END IF;
    END IF;
    IF cardinality(gone) > 0 THEN
        -- No job can bring what was never there: it needs no tombstone.
        PERFORM delete_records(the_project, array_agg(g.id)) FROM unnest(gone) AS g (id)
            WHERE g.id = ANY (known) HAVING count(*) > 0;
        IF EXISTS (SELECT FROM quarantined_records q WHERE q.project_id = the_project) THEN
            DELETE FROM quarantined_records q WHERE q.project_id = the_project AND q.record_id = ANY (gone);
        END IF;
    END IF;
    IF blank IS NOT NULL THEN
        PERFORM set_aside_blank(the_project, blank);
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION cronvec.are_back(int, text[]), cronvec.note_rows(int, text[], text[]), cronvec.set_aside(int, text[], text[], text[]) FROM PUBLIC;

-- The records' ids of those rows of a table that whoever asks can see: as the functions of its source make them.
CREATE OR REPLACE FUNCTION cronvec.visible_ids(the_table regclass, key_columns text[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    parts text := (
        SELECT string_agg(format(CASE coalesce(b.typname, t.typname) WHEN 'numeric' THEN 'trim_scale(t.%I)::text' ELSE 't.%I::text' END,
            k.name), ', ' ORDER BY k.nth)
        FROM unnest(key_columns) WITH ORDINALITY AS k (name, nth)
        JOIN pg_attribute a ON a.attrelid = the_table AND a.attname = k.name
        JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = nullif(t.typbasetype, 0));
BEGIN
    IF cardinality(key_columns) > 1 THEN
        parts := format('json_build_array(%s)::text', parts);
    END IF;
    RETURN QUERY EXECUTE format('SELECT %s FROM %s AS t', parts, the_table);
END
$$;

-- step: transaction
-- Deleted by a large statement, which a tick has yet to read. Whether there is any such row at all is asked once.
CREATE OR REPLACE VIEW cronvec.embeddings AS
    SELECT p.name AS project, c.record_id, c.ordinal, c.content, r.metadata, s.model, s.dimensions, c.embedding,
        r.content_hash <> c.content_hash AS stale, c.embedded_at
    FROM cronvec.projects p
    JOIN cronvec.spaces s ON s.id = p.live_space
    JOIN cronvec.embedded e ON e.space_id = p.live_space AND e.project_id = p.id
    JOIN cronvec.chunks c ON c.space_id = e.space_id AND c.project_id = e.project_id AND c.record_id = e.record_id
        AND c.content_hash = e.content_hash
    JOIN cronvec.records r ON r.project_id = p.id AND r.id = c.record_id AND r.content IS NOT NULL
    WHERE (SELECT NOT EXISTS (SELECT FROM cronvec.source_gone))
        OR NOT EXISTS (SELECT FROM cronvec.source_gone g WHERE g.project_id = p.id AND g.record_id = e.record_id);

CREATE OR REPLACE VIEW cronvec.searched_chunks WITH (security_barrier) AS
    SELECT c.project_id, c.space_id, c.record_id, c.content_hash, c.ordinal, c.content, c.embedding, r.metadata,
        r.content_hash <> c.content_hash AS stale
    FROM cronvec.embedded e
    JOIN cronvec.chunks c ON c.space_id = e.space_id AND c.project_id = e.project_id AND c.record_id = e.record_id
        AND c.content_hash = e.content_hash
    JOIN cronvec.records r ON r.project_id = c.project_id AND r.id = c.record_id AND r.content IS NOT NULL
    WHERE has_function_privilege('cronvec.search(text, @vector_schema@.vector, int, jsonb)'::regprocedure, 'EXECUTE')
        -- Looked up once.
        AND e.project_id <> ALL (ARRAY(SELECT f.project_id FROM cronvec.sources f WHERE cronvec.hides_rows(f.relation)))
        AND ((SELECT NOT EXISTS (SELECT FROM cronvec.source_gone))
            OR NOT EXISTS (SELECT FROM cronvec.source_gone g WHERE g.project_id = e.project_id AND g.record_id = e.record_id));
