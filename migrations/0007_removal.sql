-- A project that is being taken away, slice by slice.

-- Every enqueuer shares these rows: rather fail, and be run again, than make them queue up.
SET LOCAL lock_timeout = '3s';

-- It takes no writes and has no workers, until it is gone; nothing brings it back.
ALTER TABLE cronvec.projects
    ADD COLUMN removing boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT projects_removing CHECK (paused OR NOT removing);

CREATE OR REPLACE FUNCTION cronvec.project_id(project text) RETURNS int
LANGUAGE plpgsql STABLE
SET search_path = cronvec, pg_catalog, pg_temp
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
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN found_id;
END
$$;
