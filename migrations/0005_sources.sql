-- Tables of users' own whose rows are records: what is known of them, and the writes that their triggers make.

-- One table that feeds a project. Its triggers and functions are named by its id: source_7_event and so on.
CREATE TABLE cronvec.sources (
    id               int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id       int  NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    relation         regclass NOT NULL,
    -- As attach was told, quoted; for people.
    table_name       text NOT NULL,
    key_columns      text[] NOT NULL,
    text_sql         text NOT NULL,
    metadata_sql     text,
    where_sql        text,
    embedding_column text,
    on_change        text NOT NULL DEFAULT 'keep',
    -- Vectors that stand in the embedding column are taken for those of their texts, until the first pass is through.
    adopt            boolean NOT NULL DEFAULT false,
    -- Records with an older number went with a TRUNCATE.
    epoch            bigint NOT NULL DEFAULT 0,
    -- Where the pass that compares table and records stands; 'idle' between two.
    phase            text   NOT NULL DEFAULT 'rows',
    -- The last key, or record, that it has looked at.
    place            text[],
    rows_seen        bigint NOT NULL DEFAULT 0,
    changed          bigint NOT NULL DEFAULT 0,
    adopted          bigint NOT NULL DEFAULT 0,
    gone             bigint NOT NULL DEFAULT 0,
    deleted          bigint NOT NULL DEFAULT 0,
    -- A person, or a TRUNCATE of a partition, said that many may go.
    allow_deletes    boolean NOT NULL DEFAULT false,
    -- Why the last pass didn't get through.
    trouble          text,
    passes           bigint NOT NULL DEFAULT 0,
    -- When it last got on.
    checked_at       timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sources_one_a_project UNIQUE (project_id),
    CONSTRAINT sources_on_change CHECK (on_change IN ('keep', 'null')),
    CONSTRAINT sources_phase CHECK (phase IN ('idle', 'rows', 'count', 'gone'))
);

-- Rows that a large statement has written: named, not copied. A tick reads them before it embeds.
CREATE TABLE cronvec.source_notes (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_id int    NOT NULL REFERENCES cronvec.sources ON DELETE CASCADE,
    ids       text[] NOT NULL
);
CREATE INDEX source_notes_source ON cronvec.source_notes (source_id, id);

-- Marks records whose text is new, or that are gone, for the project's spaces.
CREATE FUNCTION cronvec.mark_pending(the_project int, ids text[]) RETURNS void
LANGUAGE sql
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
    INSERT INTO cronvec.pending AS p (space_id, project_id, record_id, bucket)
        SELECT s.space_id, the_project, i.id, cronvec.bucket(i.id)
        FROM cronvec.projects, unnest(ARRAY[live_space, next_space]) AS s (space_id), unnest(ids) AS i (id)
        WHERE projects.id = the_project AND s.space_id IS NOT NULL
        ORDER BY i.id, s.space_id
        ON CONFLICT ON CONSTRAINT pending_pkey DO UPDATE SET not_before = excluded.not_before, attempts = 0;
$$;

-- What put_record does, for many at once. Numbers are taken under the rows' locks. Blank texts aren't for it.
CREATE FUNCTION cronvec.put_records(the_project int, ids text[], contents text[], metadatas jsonb[]) RETURNS void
LANGUAGE plpgsql
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
DECLARE
    due text[];
BEGIN
    WITH input AS MATERIALIZED (
        SELECT i.id, i.content, coalesce(i.metadata, '{}') AS metadata, content_hash(i.content) AS hash,
            r.content_hash AS old_hash, r.embed
        FROM unnest(ids, contents, metadatas) AS i (id, content, metadata)
        LEFT JOIN LATERAL (
            SELECT r.content_hash, r.embed FROM records r
            WHERE r.project_id = the_project AND r.id = i.id LIMIT 1) AS r ON true
    ), put AS (
        INSERT INTO records AS r (project_id, id, content, metadata, content_hash, bucket, accepted)
            SELECT the_project, i.id, i.content, i.metadata, i.hash, bucket(i.id), nextval('cronvec.acceptance')
            FROM input i ORDER BY i.id
            ON CONFLICT ON CONSTRAINT records_pkey DO UPDATE SET
                content = excluded.content, metadata = excluded.metadata, content_hash = excluded.content_hash,
                accepted = nextval('cronvec.acceptance'), position = 0, embed = true, updated_at = now()
    )
    SELECT array_agg(i.id) INTO due FROM input i WHERE i.old_hash IS DISTINCT FROM i.hash OR NOT i.embed;
    IF due IS NULL THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM quarantined_records q WHERE q.project_id = the_project) THEN
        DELETE FROM quarantined_records q WHERE q.project_id = the_project AND q.record_id = ANY (due);
    END IF;
    PERFORM mark_pending(the_project, due);
END
$$;

-- What delete_record does, for many at once.
CREATE FUNCTION cronvec.delete_records(the_project int, ids text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
DECLARE
    due text[];
BEGIN
    WITH input AS MATERIALIZED (
        SELECT i.id, r.there FROM unnest(ids) AS i (id)
        LEFT JOIN LATERAL (
            SELECT r.content IS NOT NULL AS there FROM records r
            WHERE r.project_id = the_project AND r.id = i.id LIMIT 1) AS r ON true
    ), buried AS (
        INSERT INTO records AS r (project_id, id, content_hash, bucket, accepted)
            SELECT the_project, i.id, '', bucket(i.id), nextval('cronvec.acceptance') FROM input i ORDER BY i.id
            ON CONFLICT ON CONSTRAINT records_pkey DO UPDATE SET
                content = NULL, metadata = '{}', content_hash = '', accepted = nextval('cronvec.acceptance'),
                position = 0, updated_at = now()
    )
    SELECT array_agg(i.id) INTO due FROM input i WHERE i.there;
    IF EXISTS (SELECT FROM quarantined_records q WHERE q.project_id = the_project) THEN
        DELETE FROM quarantined_records q WHERE q.project_id = the_project AND q.record_id = ANY (ids);
    END IF;
    IF due IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM embedded e
        WHERE e.project_id = the_project AND e.record_id = ANY (due)
            AND e.space_id IN (SELECT unnest(ARRAY[live_space, next_space]) FROM projects WHERE projects.id = the_project);
    PERFORM mark_pending(the_project, due);
END
$$;

-- Rows whose text is blank are no records; they stand aside, so that coverage says where they are.
CREATE FUNCTION cronvec.set_aside_blank(the_project int, ids text[]) RETURNS void
LANGUAGE sql
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
    INSERT INTO cronvec.quarantined_records (space_id, project_id, record_id, content_hash, reason, message, attempts)
        SELECT s.space_id, the_project, i.id, '', 'no_text', 'the row has no text', 0
        FROM cronvec.projects, unnest(ARRAY[live_space, next_space]) AS s (space_id), unnest(ids) AS i (id)
        WHERE projects.id = the_project AND s.space_id IS NOT NULL
        ORDER BY i.id, s.space_id
        ON CONFLICT ON CONSTRAINT quarantined_records_pkey DO UPDATE SET
            content_hash = excluded.content_hash, reason = excluded.reason, message = excluded.message;
$$;

-- The one write that triggers make: rows that are new or changed, and keys that are gone. A text may be blank.
-- Copying 100,000 texts and marking them would take three times as long as the user's own update: more than 2,000 are
-- only named.
CREATE FUNCTION cronvec.take_rows(the_project int, ids text[], contents text[], metadatas jsonb[], gone text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
DECLARE
    blank text[];
BEGIN
    IF cardinality(ids) > 2000 THEN
        INSERT INTO source_notes (source_id, ids)
            SELECT s.id, i.ids FROM sources s, (
                SELECT array_agg(u.id) AS ids FROM unnest(ids) WITH ORDINALITY AS u (id, nth) GROUP BY (u.nth - 1) / 1000
            ) AS i
            WHERE s.project_id = the_project;
    ELSIF cardinality(ids) > 0 THEN
        SELECT array_agg(i.id) INTO blank FROM unnest(ids, contents) AS i (id, content)
            WHERE i.content IS NULL OR btrim(i.content, E' \t\n\r') = '';
        IF blank IS NULL THEN
            PERFORM put_records(the_project, ids, contents, metadatas);
        ELSE
            PERFORM put_records(the_project, array_agg(i.id), array_agg(i.content), array_agg(i.metadata))
                FROM unnest(ids, contents, metadatas) AS i (id, content, metadata)
                WHERE btrim(i.content, E' \t\n\r') <> '' HAVING count(*) > 0;
            PERFORM delete_records(the_project, blank), set_aside_blank(the_project, blank);
        END IF;
    END IF;
    IF cardinality(gone) > 0 THEN
        PERFORM delete_records(the_project, gone);
    END IF;
END
$$;

-- Rows that have no record yet; what somebody wrote meanwhile stays. Those with a vector, unless it is null or of zeros,
-- are embedded by it in the live space. Returns how many are new, and how many of them brought their vector.
CREATE FUNCTION cronvec.fill_records(the_project int, ids text[], contents text[], metadatas jsonb[],
    vectors @vector_schema@.vector[], OUT filled bigint, OUT adopted bigint)
LANGUAGE plpgsql
SET search_path = cronvec, @vector_schema@, pg_catalog, pg_temp
AS $$
DECLARE
    live int;
    next int;
    fresh text[];
    embedded_ids text[];
BEGIN
    WITH put AS (
        INSERT INTO records (project_id, id, content, metadata, content_hash, bucket, accepted)
            SELECT the_project, i.id, i.content, coalesce(i.metadata, '{}'), content_hash(i.content), bucket(i.id),
                nextval('cronvec.acceptance')
            FROM unnest(ids, contents, metadatas) AS i (id, content, metadata) ORDER BY i.id
            ON CONFLICT ON CONSTRAINT records_pkey DO NOTHING
            RETURNING id
    )
    SELECT array_agg(id) INTO fresh FROM put;
    filled := coalesce(cardinality(fresh), 0);
    adopted := 0;
    IF filled = 0 THEN
        RETURN;
    END IF;
    SELECT live_space, next_space INTO live, next FROM projects WHERE projects.id = the_project;
    WITH mine AS MATERIALIZED (
        SELECT i.id, i.content, content_hash(i.content) AS hash, i.vector
        FROM unnest(ids, contents, vectors) AS i (id, content, vector)
        JOIN unnest(fresh) AS f (id) ON f.id = i.id
        WHERE i.vector IS NOT NULL AND vector_norm(i.vector) > 0
    ), stored AS (
        INSERT INTO chunks (space_id, project_id, record_id, content_hash, ordinal, content, chunk_hash, embedding)
            SELECT live, the_project, m.id, m.hash, 0, m.content, m.hash, m.vector FROM mine m
            ON CONFLICT DO NOTHING
    ), shown AS (
        INSERT INTO embedded (space_id, project_id, record_id, content_hash, chunks)
            SELECT live, the_project, m.id, m.hash, 1 FROM mine m ON CONFLICT DO NOTHING
    )
    SELECT array_agg(m.id) INTO embedded_ids FROM mine m;
    adopted := coalesce(cardinality(embedded_ids), 0);
    INSERT INTO pending AS p (space_id, project_id, record_id, bucket)
        SELECT s.space_id, the_project, f.id, bucket(f.id)
        FROM unnest(ARRAY[live, next]) AS s (space_id), unnest(fresh) AS f (id)
        LEFT JOIN unnest(embedded_ids) AS e (id) ON e.id = f.id
        WHERE s.space_id IS NOT NULL AND (e.id IS NULL OR s.space_id <> live)
        ORDER BY f.id, s.space_id
        ON CONFLICT ON CONSTRAINT pending_pkey DO UPDATE SET not_before = excluded.not_before, attempts = 0;
END
$$;

-- Of rows that were compared those whose record is still the one that it was compared with, locked. `numbers` are the
-- records' at that time.
CREATE FUNCTION cronvec.still_compared(the_project int, ids text[], numbers bigint[]) RETURNS SETOF text
LANGUAGE sql
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
    SELECT i.id FROM unnest(ids, numbers) AS i (id, number)
    CROSS JOIN LATERAL (
        SELECT FROM cronvec.records r WHERE r.project_id = the_project AND r.id = i.id AND r.accepted = i.number
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r;
$$;

-- The parts of a composite key from a record's id; null where the id isn't such a key's.
CREATE FUNCTION cronvec.key_parts(id text, parts int) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_parts text[];
BEGIN
    SELECT array_agg(e.value ORDER BY e.nth) INTO found_parts
        FROM jsonb_array_elements_text(id::jsonb) WITH ORDINALITY AS e (value, nth);
    RETURN CASE WHEN cardinality(found_parts) = parts THEN found_parts END;
EXCEPTION WHEN data_exception OR invalid_text_representation THEN
    RETURN NULL;
END
$$;

-- These write for whoever calls them with rights of their own; triggers go through a function of their source.
REVOKE EXECUTE ON FUNCTION cronvec.mark_pending(int, text[]), cronvec.put_records(int, text[], text[], jsonb[]),
    cronvec.delete_records(int, text[]), cronvec.set_aside_blank(int, text[]),
    cronvec.take_rows(int, text[], text[], jsonb[], text[]),
    cronvec.fill_records(int, text[], text[], jsonb[], @vector_schema@.vector[]), cronvec.still_compared(int, text[], bigint[]) FROM PUBLIC;

-- Producers and searchers need these functions and no table: who may execute them is all that there is to grant.
ALTER FUNCTION cronvec.put_record(text, text, text, jsonb) SECURITY DEFINER;
ALTER FUNCTION cronvec.delete_record(text, text) SECURITY DEFINER;
ALTER FUNCTION cronvec.search(text, @vector_schema@.vector, int, jsonb) SECURITY DEFINER;
REVOKE EXECUTE ON FUNCTION cronvec.put_record(text, text, text, jsonb), cronvec.delete_record(text, text),
    cronvec.search(text, @vector_schema@.vector, int, jsonb) FROM PUBLIC;
