-- What SQL and scripts may rely on: writes, search and the views.

CREATE FUNCTION cronvec.content_hash(content text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN substring(sha256(convert_to(content, 'UTF8')) FROM 1 FOR 16);

CREATE FUNCTION cronvec.bucket(id text) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (get_byte(sha256(convert_to(id, 'UTF8')), 0) & 63)::smallint;

CREATE FUNCTION cronvec.project_id(project text) RETURNS int
LANGUAGE plpgsql STABLE
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
DECLARE
    found_id int;
BEGIN
    SELECT p.id INTO found_id FROM projects p WHERE p.name = project_id.project;
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'cronvec has no project "%"', project
            USING ERRCODE = 'no_data_found', HINT = 'Create it with: cronvec projects create NAME';
    END IF;
    RETURN found_id;
END
$$;

-- Stores a record inside the caller's transaction and marks it. Wins over every write that was accepted before it.
-- Returns whether the record is new.
CREATE FUNCTION cronvec.put_record(project text, id text, content text, metadata jsonb DEFAULT '{}') RETURNS boolean
LANGUAGE plpgsql
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
DECLARE
    the_project int := project_id(project);
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
                accepted = nextval('cronvec.acceptance'), position = 0, embed = true, updated_at = now()
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

-- Removes a record inside the caller's transaction. Leaves a tombstone, also where there was none, so that an older
-- INGEST_DATA job doesn't bring it back. Returns whether there was such a record.
CREATE FUNCTION cronvec.delete_record(project text, id text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = cronvec, pg_catalog, pg_temp
AS $$
DECLARE
    the_project int := project_id(project);
    old records%ROWTYPE;
    is_new boolean;
BEGIN
    LOOP
        SELECT * INTO old FROM records r
            WHERE r.project_id = the_project AND r.id = delete_record.id FOR NO KEY UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO records (project_id, id, content_hash, bucket, accepted)
            VALUES (the_project, delete_record.id, '', bucket(delete_record.id), nextval('cronvec.acceptance'))
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN false;
        END IF;
    END LOOP;
    UPDATE records r
        SET content = NULL, metadata = '{}', content_hash = '', accepted = nextval('cronvec.acceptance'), position = 0,
            updated_at = now()
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

-- The nearest records: the best chunk of each, by cosine similarity, from the project's live space.
CREATE FUNCTION cronvec.search(project text, query @vector_schema@.vector, max_results int DEFAULT 10,
    filter jsonb DEFAULT NULL)
RETURNS TABLE (id text, ordinal int, content text, metadata jsonb, score double precision, stale boolean)
LANGUAGE plpgsql STABLE
SET search_path = cronvec, @vector_schema@, pg_catalog, pg_temp
AS $$
DECLARE
    the_project int := project_id(project);
    live int;
    width int;
BEGIN
    SELECT s.id, s.dimensions INTO live, width
        FROM projects p JOIN spaces s ON s.id = p.live_space WHERE p.id = the_project;
    IF vector_dims(query) <> width THEN
        RAISE EXCEPTION 'project "%" is searched with vectors of % dimensions, this one has %',
            project, width, vector_dims(query) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
        WITH best AS (
            SELECT DISTINCT ON (c.record_id) c.record_id, c.content_hash, c.ordinal,
                c.embedding <=> query AS distance
            FROM chunks c
            JOIN embedded e ON e.space_id = live AND e.project_id = the_project AND e.record_id = c.record_id
                AND e.content_hash = c.content_hash
            JOIN records r ON r.project_id = the_project AND r.id = c.record_id AND r.content IS NOT NULL
            WHERE c.space_id = live AND c.project_id = the_project
                AND (filter IS NULL OR r.metadata @> filter)
            ORDER BY c.record_id, distance
        ), nearest AS (
            SELECT * FROM best ORDER BY distance, record_id LIMIT max_results
        )
        SELECT n.record_id, n.ordinal, c.content, r.metadata, 1 - n.distance, r.content_hash <> n.content_hash
        FROM nearest n
        JOIN chunks c ON c.space_id = live AND c.project_id = the_project AND c.record_id = n.record_id
            AND c.content_hash = n.content_hash AND c.ordinal = n.ordinal
        JOIN records r ON r.project_id = the_project AND r.id = n.record_id
        ORDER BY n.distance, n.record_id;
END
$$;

-- The live space's vectors of records that still exist; complete sets only.
CREATE VIEW cronvec.embeddings AS
    SELECT p.name AS project, c.record_id, c.ordinal, c.content, r.metadata, s.model, s.dimensions, c.embedding,
        r.content_hash <> c.content_hash AS stale, c.embedded_at
    FROM cronvec.projects p
    JOIN cronvec.spaces s ON s.id = p.live_space
    JOIN cronvec.embedded e ON e.space_id = p.live_space AND e.project_id = p.id
    JOIN cronvec.chunks c ON c.space_id = e.space_id AND c.project_id = e.project_id AND c.record_id = e.record_id
        AND c.content_hash = e.content_hash
    JOIN cronvec.records r ON r.project_id = p.id AND r.id = c.record_id AND r.content IS NOT NULL;

CREATE VIEW cronvec.quarantine AS
    SELECT p.name AS project, q.record_id, q.reason, q.message, q.attempts, q.last_attempt_at
    FROM cronvec.quarantined_records q
    JOIN cronvec.projects p ON p.id = q.project_id AND q.space_id IN (p.live_space, p.next_space);
