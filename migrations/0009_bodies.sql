-- INGEST_DATA jobs that are handed in as several bodies.

-- New references take a lock on the queue: rather fail, and be run again, than make its writers queue up behind us.
SET LOCAL lock_timeout = '3s';

-- Jobs whose bodies still come in. No claim sees them: their `scheduled_for` is out of reach.
CREATE TABLE cronvec.open_jobs (
    job_id    bigint NOT NULL REFERENCES cronvec.job_queue ON DELETE CASCADE,
    opened_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT open_jobs_pkey PRIMARY KEY (job_id)
);
CREATE INDEX open_jobs_by_age ON cronvec.open_jobs (opened_at);

-- The bodies that are there. The pieces of body n begin at (n - 1) * 65536.
CREATE TABLE cronvec.ingest_bodies (
    job_id  bigint NOT NULL REFERENCES cronvec.job_queue ON DELETE CASCADE,
    body    int    NOT NULL,
    -- Of its bytes as they came: the same body again is none.
    hash    bytea  NOT NULL,
    lines   int    NOT NULL,
    records int    NOT NULL,
    CONSTRAINT ingest_bodies_pkey PRIMARY KEY (job_id, body),
    CONSTRAINT ingest_bodies_body CHECK (body BETWEEN 1 AND 10000)
);
