-- Where a record comes from, and whose rights each function has.

-------------------------------------------------------------------------------------------------------------------------
-- Origins

-- The source that the record's row is in. Null: it was written through the API, SQL or an INGEST_DATA job.
ALTER TABLE cronvec.records ADD COLUMN source_id int;

-- step: transaction
-- The table that was detached last, and the number that it had: attached again, it gets that number, and its records.
ALTER TABLE cronvec.projects ADD COLUMN last_source int, ADD COLUMN last_table text;

-- step: transaction
ALTER TABLE cronvec.sources
    -- Records of another origin that were accepted before this number go with the next pass, unless they have a row.
    ADD COLUMN take_over bigint,
    -- False until a whole pass has given the records of a table that was attached by an older version their origin.
    ADD COLUMN origins_known boolean NOT NULL DEFAULT false;

-- That pass begins now.
UPDATE cronvec.sources SET phase = 'rows', place = NULL, trouble = NULL;

-- step: transaction
CREATE OR REPLACE FUNCTION cronvec.project_id(project text) RETURNS int
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    found_id int;
    is_going boolean;
BEGIN
    SELECT p.id, p.removing INTO found_id, is_going FROM projects p WHERE p.name = project_id.project;
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'cronvec has no project "%"', project
            USING ERRCODE = 'no_data_found', HINT = 'Create it with: cronvec projects create NAME';
    END IF;
    IF is_going THEN
        RAISE EXCEPTION 'the project "%" of cronvec is being removed', project
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('To continue the removal: cronvec projects remove %s', project);
    END IF;
    RETURN found_id;
END
$$;

-- The project, unless a table feeds it: then nobody else writes its records. Waits for an attach that is under way, and
-- makes later ones wait until the caller's transaction has ended.
CREATE FUNCTION cronvec.not_attached(the_project int) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    the_name text;
    the_table text;
BEGIN
    PERFORM FROM projects p WHERE p.id = the_project FOR KEY SHARE;
    -- In a statement of its own: its snapshot is taken after the wait.
    SELECT p.name, s.table_name INTO the_name, the_table
        FROM sources s JOIN projects p ON p.id = s.project_id WHERE s.project_id = the_project;
    IF FOUND THEN
        RAISE EXCEPTION 'the records of project "%" come from the table %', the_name, the_table
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('Write to the table instead, or use another project, or first run: cronvec detach %s', the_name);
    END IF;
    RETURN the_project;
END
$$;

CREATE OR REPLACE FUNCTION cronvec.put_record(project text, id text, content text, metadata jsonb DEFAULT '{}') RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    the_project int := not_attached(project_id(project));
    new_hash bytea;
    old records%ROWTYPE;
    is_new boolean := false;
BEGIN
    IF id IS NULL OR id = '' THEN
        RAISE EXCEPTION 'a record needs an id' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF content IS NULL OR btrim(content, E' \t\n\r') = '' THEN
        RAISE EXCEPTION 'record "%" has no text', id
            USING ERRCODE = 'invalid_parameter_value', HINT = 'To remove a record, call cronvec.delete_record.';
    END IF;
    IF length(id) > 1000 THEN
        RAISE EXCEPTION 'the id of a record has at most 1000 characters, this one has %', length(id)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF jsonb_typeof(metadata) <> 'object' THEN
        RAISE EXCEPTION 'the metadata of record "%" is not a JSON object', id
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    new_hash := content_hash(content);
    LOOP
        SELECT * INTO old FROM records r
            WHERE r.project_id = the_project AND r.id = put_record.id FOR NO KEY UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO records (project_id, id, content, metadata, content_hash, bucket, accepted)
            VALUES (the_project, put_record.id, put_record.content, coalesce(put_record.metadata, '{}'), new_hash,
                bucket(put_record.id), nextval('cronvec.acceptance'))
            ON CONFLICT DO NOTHING;
        is_new := FOUND;
        EXIT WHEN is_new;
    END LOOP;
    IF NOT is_new THEN
        UPDATE records r
            SET content = put_record.content, metadata = coalesce(put_record.metadata, '{}'), content_hash = new_hash,
                accepted = nextval('cronvec.acceptance'), position = 0, embed = true, source_id = NULL, updated_at = now()
            WHERE r.project_id = the_project AND r.id = put_record.id;
        is_new := old.content IS NULL;
        IF old.content_hash = new_hash AND old.embed THEN
            RETURN false;
        END IF;
        DELETE FROM quarantined_records q
            WHERE q.project_id = the_project AND q.record_id = put_record.id;
    END IF;
    INSERT INTO pending AS p (space_id, project_id, record_id, bucket)
        SELECT s.space_id, the_project, put_record.id, bucket(put_record.id)
        FROM projects, unnest(ARRAY[live_space, next_space]) AS s (space_id)
        WHERE projects.id = the_project AND s.space_id IS NOT NULL
        ORDER BY s.space_id
        ON CONFLICT ON CONSTRAINT pending_pkey DO UPDATE SET
            not_before = excluded.not_before, priority = greatest(p.priority, excluded.priority), attempts = 0;
    RETURN is_new;
END
$$;

-- Of a project that a table feeds only records of another origin can be deleted.
CREATE OR REPLACE FUNCTION cronvec.delete_record(project text, id text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    the_project int := project_id(project);
    source sources%ROWTYPE;
    old records%ROWTYPE;
BEGIN
    PERFORM FROM projects p WHERE p.id = the_project FOR KEY SHARE;
    SELECT * INTO source FROM sources s WHERE s.project_id = the_project;
    LOOP
        SELECT * INTO old FROM records r
            WHERE r.project_id = the_project AND r.id = delete_record.id FOR NO KEY UPDATE;
        EXIT WHEN FOUND;
        IF source.id IS NOT NULL THEN
            -- No job can bring it: it needs no tombstone.
            RETURN false;
        END IF;
        INSERT INTO records (project_id, id, content_hash, bucket, accepted)
            VALUES (the_project, delete_record.id, '', bucket(delete_record.id), nextval('cronvec.acceptance'))
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN false;
        END IF;
    END LOOP;
    IF source.id IS NOT NULL AND old.content IS NULL THEN
        RETURN false;
    END IF;
    IF old.source_id = source.id THEN
        RAISE EXCEPTION 'record "%" of project "%" comes from the table %', id, project, source.table_name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('Delete its row instead, or first run: cronvec detach %s', project);
    END IF;
    UPDATE records r
        SET content = NULL, metadata = '{}', content_hash = '', accepted = nextval('cronvec.acceptance'), position = 0,
            source_id = NULL, updated_at = now()
        WHERE r.project_id = the_project AND r.id = delete_record.id;
    IF old.content IS NULL THEN
        RETURN false;
    END IF;
    DELETE FROM quarantined_records q WHERE q.project_id = the_project AND q.record_id = delete_record.id;
    -- Its old text isn't shown again, should the record come back before a worker has purged what is left of it.
    DELETE FROM embedded e
        WHERE e.project_id = the_project AND e.record_id = delete_record.id
            AND e.space_id IN (SELECT unnest(ARRAY[live_space, next_space]) FROM projects WHERE projects.id = the_project);
    INSERT INTO pending AS p (space_id, project_id, record_id, bucket)
        SELECT s.space_id, the_project, delete_record.id, old.bucket
        FROM projects, unnest(ARRAY[live_space, next_space]) AS s (space_id)
        WHERE projects.id = the_project AND s.space_id IS NOT NULL
        ORDER BY s.space_id
        ON CONFLICT ON CONSTRAINT pending_pkey DO UPDATE SET not_before = excluded.not_before, attempts = 0;
    RETURN true;
END
$$;

-- What put_record does, for many rows of the project's table at once. Blank texts aren't for it.
-- Whether a text is another is decided under its record's lock, and `position`, which tells nothing of a write with a
-- number of its own, carries it out of the statement: 1 for a text that is to be embedded.
CREATE OR REPLACE FUNCTION cronvec.put_records(the_project int, ids text[], contents text[], metadatas jsonb[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    the_source int := (SELECT s.id FROM sources s WHERE s.project_id = the_project);
    due text[];
BEGIN
    WITH put AS (
        INSERT INTO records AS r
            (project_id, id, content, metadata, content_hash, bucket, accepted, position, source_id)
            SELECT the_project, i.id, i.content, coalesce(i.metadata, '{}'), content_hash(i.content), bucket(i.id),
                nextval('cronvec.acceptance'), 1, the_source
            FROM unnest(ids, contents, metadatas) AS i (id, content, metadata) ORDER BY i.id
            ON CONFLICT ON CONSTRAINT records_pkey DO UPDATE SET
                content = excluded.content, metadata = excluded.metadata, content_hash = excluded.content_hash,
                accepted = nextval('cronvec.acceptance'),
                position = (r.content_hash <> excluded.content_hash OR NOT r.embed)::int,
                embed = true, source_id = excluded.source_id, updated_at = now()
            RETURNING r.id, r.position
    )
    SELECT array_agg(p.id) INTO due FROM put p WHERE p.position = 1;
    IF due IS NULL THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM quarantined_records q WHERE q.project_id = the_project) THEN
        DELETE FROM quarantined_records q WHERE q.project_id = the_project AND q.record_id = ANY (due);
    END IF;
    PERFORM mark_pending(the_project, due);
END
$$;

-- What delete_record does, for many rows at once; `position` is 1 where there was a record. Records of another origin
-- stay, but for those that are taken over; as long as origins aren't known all are the table's.
CREATE OR REPLACE FUNCTION cronvec.delete_records(the_project int, ids text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    source sources%ROWTYPE;
    buried text[];
    due text[];
BEGIN
    SELECT * INTO source FROM sources s WHERE s.project_id = the_project;
    WITH written AS (
        INSERT INTO records AS r (project_id, id, content_hash, bucket, accepted, source_id)
            SELECT the_project, i.id, '', bucket(i.id), nextval('cronvec.acceptance'), source.id
            FROM unnest(ids) AS i (id) ORDER BY i.id
            ON CONFLICT ON CONSTRAINT records_pkey DO UPDATE SET
                position = (r.content IS NOT NULL)::int, content = NULL, metadata = '{}', content_hash = '',
                accepted = nextval('cronvec.acceptance'), source_id = excluded.source_id, updated_at = now()
            WHERE r.content IS NULL OR r.source_id = source.id OR NOT source.origins_known OR r.accepted < source.take_over
            RETURNING r.id, r.position
    )
    SELECT array_agg(w.id), array_agg(w.id) FILTER (WHERE w.position = 1) INTO buried, due FROM written w;
    IF EXISTS (SELECT FROM quarantined_records q WHERE q.project_id = the_project) THEN
        DELETE FROM quarantined_records q WHERE q.project_id = the_project AND q.record_id = ANY (buried);
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

CREATE OR REPLACE FUNCTION cronvec.fill_records(the_project int, ids text[], contents text[], metadatas jsonb[],
    vectors @vector_schema@.vector[], OUT filled bigint, OUT adopted bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    the_source int := (SELECT s.id FROM sources s WHERE s.project_id = the_project);
    live int;
    next int;
    fresh text[];
    embedded_ids text[];
BEGIN
    WITH put AS (
        INSERT INTO records (project_id, id, content, metadata, content_hash, bucket, accepted, source_id)
            SELECT the_project, i.id, i.content, coalesce(i.metadata, '{}'), content_hash(i.content), bucket(i.id),
                nextval('cronvec.acceptance'), the_source
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
        WHERE i.vector IS NOT NULL AND @vector_schema@.vector_norm(i.vector) > 0
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

-- Records that are in line with their row and have another origin: they are the table's from now on. Those that somebody
-- holds are left to the next pass.
CREATE FUNCTION cronvec.claim_records(the_project int, ids text[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
    WITH mine AS MATERIALIZED (
        SELECT i.id FROM unnest(ids) AS i (id)
        CROSS JOIN LATERAL (
            SELECT FROM cronvec.records r WHERE r.project_id = the_project AND r.id = i.id
            LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
    )
    UPDATE cronvec.records r SET source_id = s.id
        FROM cronvec.sources s
        WHERE s.project_id = the_project AND r.project_id = the_project AND r.id = ANY (ARRAY(SELECT id FROM mine))
            AND r.content IS NOT NULL;
$$;

REVOKE EXECUTE ON FUNCTION cronvec.not_attached(int), cronvec.claim_records(int, text[]) FROM PUBLIC;

-------------------------------------------------------------------------------------------------------------------------
-- Rights. `pg_catalog` comes first in each function's search path, and behind it there is no schema in which anybody else
-- could put an operator or a function in the way.

ALTER FUNCTION cronvec.mark_pending(int, text[]) SET search_path = pg_catalog, cronvec, pg_temp;
ALTER FUNCTION cronvec.set_aside_blank(int, text[]) SET search_path = pg_catalog, cronvec, pg_temp;
ALTER FUNCTION cronvec.take_rows(int, text[], text[], jsonb[], text[]) SET search_path = pg_catalog, cronvec, pg_temp;
ALTER FUNCTION cronvec.still_compared(int, text[], bigint[]) SET search_path = pg_catalog, cronvec, pg_temp;

-- pgvector's, bound once and for all: whoever calls them needs no rights on the extension's schema.
CREATE FUNCTION cronvec.cosine_distance(one @vector_schema@.vector, other @vector_schema@.vector) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN one OPERATOR(@vector_schema@.<=>) other;

CREATE FUNCTION cronvec.width(of_vector @vector_schema@.vector) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN @vector_schema@.vector_dims(of_vector);

-- Whether row-level security hides rows of a table from whoever asks. Who may read `records` sees all texts anyway.
CREATE FUNCTION cronvec.hides_rows(the_table regclass) RETURNS boolean
LANGUAGE sql STABLE
RETURN row_security_active(the_table) AND NOT has_table_privilege('cronvec.records'::regclass, 'SELECT');

-- The records' ids of those rows of a table that whoever asks can see.
CREATE FUNCTION cronvec.visible_ids(the_table regclass, key_columns text[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts text := (SELECT string_agg(format('t.%I::text', k.name), ', ' ORDER BY k.nth)
        FROM unnest(key_columns) WITH ORDINALITY AS k (name, nth));
BEGIN
    IF cardinality(key_columns) > 1 THEN
        parts := format('json_build_array(%s)::text', parts);
    END IF;
    RETURN QUERY EXECUTE format('SELECT %s FROM %s AS t', parts, the_table);
END
$$;

-- What a search reads. Tables are read with the rights of the view's owner, while functions in it are asked for whoever
-- reads the view: so it shows something to those alone who may execute `search`, and of a table with row-level security
-- those rows that they see. Nothing else of the reader's runs before these conditions.
CREATE VIEW cronvec.searched_projects WITH (security_barrier) AS
    SELECT p.id, p.name, p.removing, p.live_space, s.dimensions,
        EXISTS (SELECT FROM cronvec.sources f WHERE f.project_id = p.id AND cronvec.hides_rows(f.relation)) AS hides_rows
    FROM cronvec.projects p JOIN cronvec.spaces s ON s.id = p.live_space
    WHERE has_function_privilege('cronvec.search(text, @vector_schema@.vector, int, jsonb)'::regprocedure, 'EXECUTE');

CREATE VIEW cronvec.searched_chunks WITH (security_barrier) AS
    SELECT c.project_id, c.space_id, c.record_id, c.content_hash, c.ordinal, c.content, c.embedding, r.metadata,
        r.content_hash <> c.content_hash AS stale
    FROM cronvec.embedded e
    JOIN cronvec.chunks c ON c.space_id = e.space_id AND c.project_id = e.project_id AND c.record_id = e.record_id
        AND c.content_hash = e.content_hash
    JOIN cronvec.records r ON r.project_id = c.project_id AND r.id = c.record_id AND r.content IS NOT NULL
    WHERE has_function_privilege('cronvec.search(text, @vector_schema@.vector, int, jsonb)'::regprocedure, 'EXECUTE')
        -- Looked up once.
        AND e.project_id <> ALL (ARRAY(SELECT f.project_id FROM cronvec.sources f WHERE cronvec.hides_rows(f.relation)));

-- Of tables whose rows are hidden: a view of its own, since PostgreSQL would flatten a UNION ALL of both, and its barrier.
-- One by one from the visible ids on: the order of joins isn't left to the planner, which might ask for them again and again.
CREATE VIEW cronvec.searched_visible_chunks WITH (security_barrier) AS
    SELECT p.id AS project_id, p.live_space AS space_id, v.id AS record_id, e.content_hash, c.ordinal, c.content, c.embedding,
        r.metadata, r.content_hash <> e.content_hash AS stale
    FROM cronvec.projects p
    JOIN cronvec.sources f ON f.project_id = p.id AND cronvec.hides_rows(f.relation)
    CROSS JOIN LATERAL cronvec.visible_ids(f.relation, f.key_columns) AS v (id)
    CROSS JOIN LATERAL (
        SELECT e.content_hash FROM cronvec.embedded e
        WHERE e.space_id = p.live_space AND e.project_id = p.id AND e.record_id = v.id LIMIT 1) AS e
    CROSS JOIN LATERAL (
        SELECT r.metadata, r.content_hash FROM cronvec.records r
        WHERE r.project_id = p.id AND r.id = v.id AND r.content IS NOT NULL
            AND (r.source_id = f.id OR NOT f.origins_known) LIMIT 1) AS r
    CROSS JOIN LATERAL (
        SELECT c.ordinal, c.content, c.embedding FROM cronvec.chunks c
        WHERE c.space_id = p.live_space AND c.project_id = p.id AND c.record_id = v.id
            AND c.content_hash = e.content_hash OFFSET 0) AS c
    WHERE has_function_privilege('cronvec.search(text, @vector_schema@.vector, int, jsonb)'::regprocedure, 'EXECUTE');

GRANT SELECT ON cronvec.searched_projects, cronvec.searched_chunks, cronvec.searched_visible_chunks TO PUBLIC;

-- With the rights of whoever calls it: the views above decide what these are.
CREATE OR REPLACE FUNCTION cronvec.search(project text, query @vector_schema@.vector, max_results int DEFAULT 10,
    filter jsonb DEFAULT NULL)
RETURNS TABLE (id text, ordinal int, content text, metadata jsonb, score double precision, stale boolean)
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    found_project searched_projects%ROWTYPE;
BEGIN
    SELECT * INTO found_project FROM searched_projects p WHERE p.name = search.project;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'cronvec has no project "%"', project
            USING ERRCODE = 'no_data_found', HINT = 'Create it with: cronvec projects create NAME';
    END IF;
    IF found_project.removing THEN
        RAISE EXCEPTION 'the project "%" of cronvec is being removed', project
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF width(query) <> found_project.dimensions THEN
        RAISE EXCEPTION 'project "%" is searched with vectors of % dimensions, this one has %',
            project, found_project.dimensions, width(query) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF found_project.hides_rows THEN
        -- In one go: the rows that are visible are asked for once.
        RETURN QUERY
            WITH best AS (
                SELECT DISTINCT ON (c.record_id) c.record_id, c.ordinal, c.content, c.metadata, c.stale,
                    cosine_distance(c.embedding, query) AS distance
                FROM searched_visible_chunks c
                WHERE c.project_id = found_project.id AND c.space_id = found_project.live_space
                    AND (filter IS NULL OR c.metadata @> filter)
                ORDER BY c.record_id, distance
            )
            SELECT b.record_id, b.ordinal, b.content, b.metadata, 1 - b.distance, b.stale
            FROM best b ORDER BY b.distance, b.record_id LIMIT max_results;
        RETURN;
    END IF;
    -- Texts are fetched for those alone that are found.
    RETURN QUERY
        WITH best AS (
            SELECT DISTINCT ON (c.record_id) c.record_id, c.content_hash, c.ordinal,
                cosine_distance(c.embedding, query) AS distance
            FROM searched_chunks c
            WHERE c.project_id = found_project.id AND c.space_id = found_project.live_space
                AND (filter IS NULL OR c.metadata @> filter)
            ORDER BY c.record_id, distance
        ), nearest AS MATERIALIZED (
            SELECT * FROM best b ORDER BY b.distance, b.record_id LIMIT max_results
        )
        SELECT n.record_id, n.ordinal, c.content, c.metadata, 1 - n.distance, c.stale
        FROM nearest n
        CROSS JOIN LATERAL (
            SELECT c.content, c.metadata, c.stale FROM searched_chunks c
            WHERE c.project_id = found_project.id AND c.space_id = found_project.live_space AND c.record_id = n.record_id
                AND c.content_hash = n.content_hash AND c.ordinal = n.ordinal
            LIMIT 1) AS c
        ORDER BY n.distance, n.record_id;
END
$$;

-- The first thing that a function does which belongs to a table's owner and is called by workers: it must run with the
-- owner's rights, whatever has become of it. `ALTER FUNCTION … SECURITY INVOKER` by the owner would let it run with the
-- worker's; together with `SET role`, too, from which it could return.
CREATE FUNCTION cronvec.assert_definer(the_function text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner name;
    schema_owner name;
    login name;
BEGIN
    SELECT pg_get_userbyid(p.proowner), pg_get_userbyid(n.nspowner) INTO owner, schema_owner
        FROM pg_namespace n JOIN pg_proc p ON p.pronamespace = n.oid
        WHERE n.nspname = 'cronvec' AND p.proname = the_function;
    IF owner = schema_owner THEN
        -- He has all the rights that there are to protect.
        RETURN;
    END IF;
    IF session_user = owner THEN
        SELECT pg_get_userbyid(a.usesysid) INTO login FROM pg_stat_get_activity(pg_backend_pid()) AS a;
    END IF;
    IF current_user <> owner OR current_setting('role') = owner OR login <> owner THEN
        RAISE EXCEPTION 'cronvec.% does not run with the rights of its owner', the_function
            USING ERRCODE = 'insufficient_privilege', HINT = 'Run: cronvec doctor';
    END IF;
END
$$;

-- Brings the functions of an attached table to the rights that they are to have; those that an older version made, too.
-- Needs the rights of the schema's owner and of the table's.
CREATE FUNCTION cronvec.secure_source(the_source int) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    table_owner text;
    workers text;
    grantee text;
    f record;
    definition text;
BEGIN
    SELECT quote_ident(pg_get_userbyid(c.relowner)) INTO STRICT table_owner
        FROM cronvec.sources s JOIN pg_class c ON c.oid = s.relation WHERE s.id = the_source;
    -- Workers with a role of their own are those that were granted the filling of records.
    SELECT string_agg(DISTINCT quote_ident(pg_get_userbyid(w.role)), ', ') INTO workers
        FROM (
            SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = 'cronvec'
            UNION ALL
            SELECT a.grantee FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
            WHERE p.pronamespace = 'cronvec'::regnamespace AND p.proname = 'fill_records' AND a.grantee <> 0
        ) AS w (role);
    FOR f IN
        SELECT p.oid, p.oid::regprocedure::text AS signature, p.proname, p.prosrc, p.proacl,
            substring(p.proname FROM '^source_[0-9]+_(.*)$') AS kind
        FROM pg_proc p
        WHERE p.pronamespace = 'cronvec'::regnamespace AND starts_with(p.proname::text, format('source_%s_', the_source))
        ORDER BY p.proname
    LOOP
        CONTINUE WHEN f.kind IN ('text', 'metadata', 'where');
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', f.signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f.signature);
        IF f.kind IN ('take', 'truncated') THEN
            FOR grantee IN
                SELECT quote_ident(pg_get_userbyid(a.grantee)) FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
                WHERE p.oid = f.oid AND a.grantee NOT IN (0, p.proowner)
            LOOP
                EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', f.signature, grantee);
            END LOOP;
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f.signature, table_owner);
            CONTINUE;
        END IF;
        IF f.kind NOT IN ('event', 'forget') THEN
            EXECUTE format('ALTER FUNCTION %s SET row_security = off', f.signature);
            IF strpos(f.prosrc, 'cronvec.assert_definer(') = 0 THEN
                definition := pg_get_functiondef(f.oid);
                EXECUTE replace(definition, f.prosrc,
                    regexp_replace(f.prosrc, 'BEGIN', format(E'BEGIN\n    PERFORM cronvec.assert_definer(%L);', f.proname)));
            END IF;
        END IF;
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f.signature, workers);
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA cronvec TO %s', table_owner);
END
$$;

REVOKE EXECUTE ON FUNCTION cronvec.secure_source(int) FROM PUBLIC;

-- Tables of owners whose rights this role doesn't have stay as they are: `cronvec doctor` names them.
DO $$
DECLARE
    source record;
BEGIN
    FOR source IN SELECT s.id FROM cronvec.sources s JOIN pg_class c ON c.oid = s.relation LOOP
        BEGIN
            PERFORM cronvec.secure_source(source.id);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END LOOP;
END
$$;
