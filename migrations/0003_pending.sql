-- The line of pending records, how a record is cut whose chunks the provider found too long, and what put_record refuses.

-- Every writer's transaction touches this table: rather fail, and be run again, than make them queue up.
SET LOCAL lock_timeout = '3s';

-- Space and project in one, and an index that begins with it: so that no look-up of single records is ever planned along
-- the line, and no reading of the line along the primary key, whatever the statistics say of a table that was filled a
-- moment ago.
DROP INDEX IF EXISTS cronvec.pending_line;
ALTER TABLE cronvec.pending
    DROP CONSTRAINT pending_pkey,
    ADD COLUMN IF NOT EXISTS line bigint GENERATED ALWAYS AS ((space_id::bigint << 32) + project_id) STORED,
    ADD CONSTRAINT pending_pkey PRIMARY KEY (record_id, project_id, space_id);
-- A slice reads along it: priority, then age.
CREATE INDEX pending_line ON cronvec.pending (line, (-priority), not_before, record_id, bucket);

-- Tokens of its chunks where the space's own number proved too many, and the content's hash that this was found with:
-- another text is cut as the space says.
ALTER TABLE cronvec.pending
    ADD COLUMN cut_tokens int,
    ADD COLUMN cut_hash bytea,
    ADD CONSTRAINT pending_cut CHECK ((cut_tokens IS NULL) = (cut_hash IS NULL) AND cut_tokens > 0);

CREATE OR REPLACE FUNCTION cronvec.put_record(project text, id text, content text, metadata jsonb DEFAULT '{}') RETURNS boolean
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
