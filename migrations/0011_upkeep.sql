-- What ticks keep right (jobs are held as their projects are paused, sequences are ahead of the data), and uploads that
-- are staged piece by piece.

-- Where the sequence of acceptance stood when a tick last looked. It is copied with the data, where the sequence itself
-- may be left behind.
CREATE TABLE cronvec.acceptance_mark (
    one      boolean NOT NULL DEFAULT true,
    -- The last number that was given out.
    last     bigint  NOT NULL,
    -- Where that was seen, as cronvec.place() says it. Null: all records are yet to be compared with the sequence.
    place    text,
    moved_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT acceptance_mark_pkey PRIMARY KEY (one),
    CONSTRAINT acceptance_mark_one CHECK (one)
);
INSERT INTO cronvec.acceptance_mark (last)
    SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM cronvec.acceptance;

-- The server, the database and the sequence. It runs as the schema's owner, so that every role gets the same answer:
-- not every role, and not every hosted server, tells its system identifier.
CREATE FUNCTION cronvec.place() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    system text := '';
BEGIN
    BEGIN
        SELECT c.system_identifier::text INTO system FROM pg_catalog.pg_control_system() AS c;
    EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN
        system := '';
    END;
    RETURN concat_ws('/', system, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()),
        'cronvec.acceptance'::regclass::oid);
END
$$;

-- step: transaction
-- Bodies that are on their way. The pieces of upload n are staged from -65536 * n on, where nobody reads them; publishing
-- the body gives them the numbers that it has.
CREATE TABLE cronvec.uploads (
    job_id     bigint NOT NULL REFERENCES cronvec.job_queue ON DELETE CASCADE,
    upload     int    NOT NULL,
    body       int    NOT NULL,
    -- When its last piece came.
    touched_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT uploads_pkey PRIMARY KEY (job_id, upload),
    CONSTRAINT uploads_upload CHECK (upload BETWEEN 1 AND 32767)
);
CREATE INDEX uploads_by_age ON cronvec.uploads (touched_at);

-- step: transaction
CREATE INDEX projects_paused ON cronvec.projects (id) WHERE paused;

-- step: concurrently
-- Jobs that are held, by project: of a project that runs there is none.
CREATE INDEX CONCURRENTLY job_queue_held ON cronvec.job_queue (project_id, id)
    WHERE held AND status IN ('PENDING', 'PROCESSING');
