-- Which spaces a project has, and what each of them is to it. One is live: searches read it. One may be filled beside it,
-- one kept of the time before: every write marks the live and the next one.
-- Functions and views change first, columns go last: statements that are under way end with what they began with.
CREATE TABLE cronvec.project_spaces (
    project_id int  NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    space_id   int  NOT NULL,
    role       text NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT project_spaces_pkey PRIMARY KEY (project_id, role),
    CONSTRAINT project_spaces_once UNIQUE (project_id, space_id),
    CONSTRAINT project_spaces_role CHECK (role IN ('live', 'next', 'previous'))
);

INSERT INTO cronvec.project_spaces (project_id, space_id, role)
    SELECT p.id, s.space_id, s.role
    FROM cronvec.projects p, unnest(ARRAY[p.live_space, p.next_space], ARRAY['live', 'next']) AS s (space_id, role)
    WHERE s.space_id IS NOT NULL;

-- step: transaction
ALTER TABLE cronvec.project_spaces ADD FOREIGN KEY (space_id) REFERENCES cronvec.spaces;

-- step: transaction
-- The one place that marks records, whoever wrote them: what is left to do, in each space that is kept in step, but for one.
CREATE FUNCTION cronvec.mark(the_project int, ids text[], the_priority int DEFAULT 0, the_operation bigint DEFAULT NULL,
    but int DEFAULT NULL) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
    INSERT INTO cronvec.pending AS p (space_id, project_id, record_id, bucket, priority, operation)
        SELECT s.space_id, the_project, i.id, cronvec.bucket(i.id), the_priority, the_operation
        FROM cronvec.project_spaces s, unnest(ids) AS i (id)
        WHERE s.project_id = the_project AND s.role <> 'previous' AND s.space_id IS DISTINCT FROM but
        ORDER BY i.id, s.space_id
        ON CONFLICT ON CONSTRAINT pending_pkey DO UPDATE SET
            not_before = excluded.not_before, priority = greatest(p.priority, excluded.priority), attempts = 0,
            operation = coalesce(excluded.operation, p.operation);
$$;

REVOKE EXECUTE ON FUNCTION cronvec.mark(int, text[], int, bigint, int) FROM PUBLIC;

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
    PERFORM mark(the_project, ARRAY[put_record.id]);
    RETURN is_new;
END
$$;

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
            AND e.space_id IN (SELECT s.space_id FROM project_spaces s WHERE s.project_id = the_project);
    PERFORM mark(the_project, ARRAY[delete_record.id]);
    RETURN true;
END
$$;

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
    PERFORM mark(the_project, due);
END
$$;

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
            AND e.space_id IN (SELECT s.space_id FROM project_spaces s WHERE s.project_id = the_project);
    PERFORM mark(the_project, due);
END
$$;

CREATE OR REPLACE FUNCTION cronvec.fill_records(the_project int, ids text[], contents text[], metadatas jsonb[],
    vectors @vector_schema@.vector[], OUT filled bigint, OUT adopted bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    the_source int := (SELECT s.id FROM sources s WHERE s.project_id = the_project);
    live int := (SELECT s.space_id FROM project_spaces s WHERE s.project_id = the_project AND s.role = 'live');
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
    PERFORM mark(the_project, ARRAY(SELECT f.id FROM unnest(fresh) AS f (id)
        LEFT JOIN unnest(embedded_ids) AS e (id) ON e.id = f.id WHERE e.id IS NULL));
    PERFORM mark(the_project, embedded_ids, but => live);
END
$$;

CREATE OR REPLACE FUNCTION cronvec.set_aside(the_project int, ids text[], reasons text[], messages text[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
    INSERT INTO cronvec.quarantined_records (space_id, project_id, record_id, content_hash, reason, message, attempts)
        SELECT s.space_id, the_project, i.id, '', i.reason, i.message, 0
        FROM cronvec.project_spaces s, unnest(ids, reasons, messages) AS i (id, reason, message)
        WHERE s.project_id = the_project AND s.role <> 'previous'
        ORDER BY i.id, s.space_id
        ON CONFLICT ON CONSTRAINT quarantined_records_pkey DO UPDATE SET
            content_hash = excluded.content_hash, reason = excluded.reason, message = excluded.message;
$$;

-- Of what a search reads: each space of a project.
CREATE VIEW cronvec.searched_spaces WITH (security_barrier) AS
    SELECT p.id, p.name, p.removing, o.space_id, o.role, s.dimensions,
        EXISTS (SELECT FROM cronvec.sources f WHERE f.project_id = p.id AND cronvec.hides_rows(f.relation)) AS hides_rows
    FROM cronvec.projects p
    JOIN cronvec.project_spaces o ON o.project_id = p.id
    JOIN cronvec.spaces s ON s.id = o.space_id
    WHERE has_function_privilege('cronvec.search(text, @vector_schema@.vector, int, jsonb)'::regprocedure, 'EXECUTE');

CREATE VIEW cronvec.visible_chunks WITH (security_barrier) AS
    SELECT p.id AS project_id, o.space_id, v.id AS record_id, e.content_hash, c.ordinal, c.content, c.embedding,
        r.metadata, r.content_hash <> e.content_hash AS stale
    FROM cronvec.projects p
    JOIN cronvec.project_spaces o ON o.project_id = p.id
    JOIN cronvec.sources f ON f.project_id = p.id AND cronvec.hides_rows(f.relation)
    CROSS JOIN LATERAL cronvec.visible_ids(f.relation, f.key_columns) AS v (id)
    CROSS JOIN LATERAL (
        SELECT e.content_hash FROM cronvec.embedded e
        WHERE e.space_id = o.space_id AND e.project_id = p.id AND e.record_id = v.id LIMIT 1) AS e
    CROSS JOIN LATERAL (
        SELECT r.metadata, r.content_hash FROM cronvec.records r
        WHERE r.project_id = p.id AND r.id = v.id AND r.content IS NOT NULL
            AND (r.source_id = f.id OR NOT f.origins_known) LIMIT 1) AS r
    CROSS JOIN LATERAL (
        SELECT c.ordinal, c.content, c.embedding FROM cronvec.chunks c
        WHERE c.space_id = o.space_id AND c.project_id = p.id AND c.record_id = v.id
            AND c.content_hash = e.content_hash OFFSET 0) AS c
    WHERE has_function_privilege('cronvec.search(text, @vector_schema@.vector, int, jsonb)'::regprocedure, 'EXECUTE');

GRANT SELECT ON cronvec.searched_spaces, cronvec.visible_chunks TO PUBLIC;

-- With the rights of whoever calls it, as `search`: the views decide what these are.
CREATE FUNCTION cronvec.search_in(project text, the_space int, query @vector_schema@.vector, max_results int, filter jsonb)
RETURNS TABLE (id text, ordinal int, content text, metadata jsonb, score double precision, stale boolean)
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    chosen searched_spaces%ROWTYPE;
BEGIN
    SELECT * INTO chosen FROM searched_spaces p WHERE p.name = search_in.project AND p.space_id = the_space;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'project "%" of cronvec has no space %', project, the_space USING ERRCODE = 'no_data_found';
    END IF;
    IF chosen.removing THEN
        RAISE EXCEPTION 'the project "%" of cronvec is being removed', project
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF width(query) <> chosen.dimensions THEN
        RAISE EXCEPTION 'project "%" is searched with vectors of % dimensions, this one has %',
            project, chosen.dimensions, width(query) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF chosen.hides_rows THEN
        -- In one go: the rows that are visible are asked for once.
        RETURN QUERY
            WITH best AS (
                SELECT DISTINCT ON (c.record_id) c.record_id, c.ordinal, c.content, c.metadata, c.stale,
                    cosine_distance(c.embedding, query) AS distance
                FROM visible_chunks c
                WHERE c.project_id = chosen.id AND c.space_id = chosen.space_id
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
            WHERE c.project_id = chosen.id AND c.space_id = chosen.space_id
                AND (filter IS NULL OR c.metadata @> filter)
            ORDER BY c.record_id, distance
        ), nearest AS MATERIALIZED (
            SELECT * FROM best b ORDER BY b.distance, b.record_id LIMIT max_results
        )
        SELECT n.record_id, n.ordinal, c.content, c.metadata, 1 - n.distance, c.stale
        FROM nearest n
        CROSS JOIN LATERAL (
            SELECT c.content, c.metadata, c.stale FROM searched_chunks c
            WHERE c.project_id = chosen.id AND c.space_id = chosen.space_id AND c.record_id = n.record_id
                AND c.content_hash = n.content_hash AND c.ordinal = n.ordinal
            LIMIT 1) AS c
        ORDER BY n.distance, n.record_id;
END
$$;

GRANT EXECUTE ON FUNCTION cronvec.search_in(text, int, @vector_schema@.vector, int, jsonb) TO PUBLIC;

CREATE OR REPLACE FUNCTION cronvec.search(project text, query @vector_schema@.vector, max_results int DEFAULT 10,
    filter jsonb DEFAULT NULL)
RETURNS TABLE (id text, ordinal int, content text, metadata jsonb, score double precision, stale boolean)
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = pg_catalog, cronvec, pg_temp
AS $$
DECLARE
    live int := (SELECT p.space_id FROM searched_spaces p WHERE p.name = search.project AND p.role = 'live');
BEGIN
    IF live IS NULL THEN
        RAISE EXCEPTION 'cronvec has no project "%"', project
            USING ERRCODE = 'no_data_found', HINT = 'Create it with: cronvec projects create NAME';
    END IF;
    RETURN QUERY SELECT * FROM search_in(project, live, query, max_results, filter);
END
$$;

-- step: transaction
CREATE OR REPLACE VIEW cronvec.quarantine AS
    SELECT p.name AS project, q.record_id, q.reason, q.message, q.attempts, q.last_attempt_at
    FROM cronvec.quarantined_records q
    JOIN cronvec.projects p ON p.id = q.project_id
    JOIN cronvec.project_spaces s ON s.project_id = p.id AND s.space_id = q.space_id AND s.role <> 'previous';

-- step: transaction
CREATE OR REPLACE VIEW cronvec.embeddings AS
    SELECT p.name AS project, c.record_id, c.ordinal, c.content, r.metadata, s.model, s.dimensions, c.embedding,
        r.content_hash <> c.content_hash AS stale, c.embedded_at
    FROM cronvec.projects p
    JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
    JOIN cronvec.spaces s ON s.id = l.space_id
    JOIN cronvec.embedded e ON e.space_id = l.space_id AND e.project_id = p.id
    JOIN cronvec.chunks c ON c.space_id = e.space_id AND c.project_id = e.project_id AND c.record_id = e.record_id
        AND c.content_hash = e.content_hash
    JOIN cronvec.records r ON r.project_id = p.id AND r.id = c.record_id AND r.content IS NOT NULL
    WHERE (SELECT NOT EXISTS (SELECT FROM cronvec.source_gone))
        OR NOT EXISTS (SELECT FROM cronvec.source_gone g WHERE g.project_id = p.id AND g.record_id = e.record_id);

-- step: transaction
DROP FUNCTION cronvec.mark_pending(int, text[]);

DROP VIEW cronvec.searched_projects;

-- step: transaction
DROP VIEW cronvec.searched_visible_chunks;

-- step: transaction
-- A project that was made meanwhile.
LOCK TABLE cronvec.projects;

INSERT INTO cronvec.project_spaces (project_id, space_id, role)
    SELECT p.id, p.live_space, 'live' FROM cronvec.projects p ON CONFLICT DO NOTHING;

ALTER TABLE cronvec.projects DROP COLUMN live_space, DROP COLUMN next_space;
