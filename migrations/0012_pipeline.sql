-- What a pass learns about records, jobs and endpoints, kept so that it outlives the pass.

-- A provider refused a request in which this record's text was one of `suspect_inputs`. Records of the same group were
-- refused together; the search for the text at fault goes on from there. It is about one text: another has its own hash.
ALTER TABLE cronvec.pending
    ADD COLUMN suspect_group bigint,
    ADD COLUMN suspect_inputs int,
    ADD COLUMN suspect_reason text,
    ADD COLUMN suspect_message text,
    ADD COLUMN suspect_hash bytea;

-- step: transaction
-- Records that somebody else's transaction held when their vectors were to be stored. Before one of them is sent to a
-- provider again, the worker looks whether it is free.
CREATE TABLE cronvec.held_records (
    record_id  text NOT NULL,
    project_id int  NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    space_id   int  NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT held_records_pkey PRIMARY KEY (record_id, project_id, space_id)
);

-- step: transaction
ALTER TABLE cronvec.held_records ADD FOREIGN KEY (space_id) REFERENCES cronvec.spaces ON DELETE CASCADE;

-- step: transaction
-- The leases whose ends are counted in `crashes`, the last one first. If a worker of theirs turns out to live, its crash is
-- taken back.
ALTER TABLE cronvec.job_queue ADD COLUMN crashed_leases uuid[];

-- step: transaction
-- Canaries that an open circuit has swallowed: the next one waits twice as long.
ALTER TABLE cronvec.provider_pauses ADD COLUMN canaries int NOT NULL DEFAULT 0;

-- step: concurrently
-- Jobs that may have been taken from a worker that lives: few, and none for long.
CREATE INDEX CONCURRENTLY job_queue_crashed ON cronvec.job_queue (id) WHERE crashed_leases IS NOT NULL;
