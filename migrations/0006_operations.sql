-- What operators set going.

-- One row a backfill. Its id is the operation of the pending rows that it made: numbered as writes are, so that what a
-- record was written with later is told from what the backfill found.
CREATE TABLE cronvec.backfills (
    id         bigint PRIMARY KEY DEFAULT nextval('cronvec.acceptance'),
    project_id int    NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    state      text   NOT NULL DEFAULT 'running',
    priority   int    NOT NULL DEFAULT 0,
    -- Pending rows that it made, and those of them that were withdrawn.
    marked     bigint NOT NULL DEFAULT 0,
    withdrawn  bigint NOT NULL DEFAULT 0,
    -- The last record that the round looked at; null: the round begins.
    cursor     text,
    -- Rounds that came to their end.
    rounds     int    NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    CONSTRAINT backfills_state CHECK (state IN ('running', 'stopped', 'finished', 'rolled_back')),
    CONSTRAINT backfills_priority CHECK (priority > -2147483648),
    CONSTRAINT backfills_end CHECK ((state IN ('finished', 'rolled_back')) = (ended_at IS NOT NULL))
);
-- One that can be gone on with a project.
CREATE UNIQUE INDEX backfills_one_a_project ON cronvec.backfills (project_id) WHERE ended_at IS NULL;
