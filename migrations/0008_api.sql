-- What the HTTP API needs: who may call it, and figures that a page may ask for every few seconds.

-- The queue and the metrics are indexed anew: rather fail, and be run again, than make their writers queue up behind a
-- transaction that holds them.
SET LOCAL lock_timeout = '3s';

-- One row a token. The secret itself is nowhere: it has 256 random bits, so its plain SHA-256 is enough.
CREATE TABLE cronvec.api_tokens (
    id           int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text  NOT NULL,
    role         text  NOT NULL,
    -- Null: all there are, and all there will be.
    projects     text[],
    hash         bytea NOT NULL,
    -- How the secret begins, for people who look for one of theirs.
    hint         text  NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Written once a minute at most.
    last_used_at timestamptz,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    CONSTRAINT api_tokens_hash UNIQUE (hash),
    CONSTRAINT api_tokens_role CHECK (role IN ('reader', 'producer', 'manager', 'admin')),
    CONSTRAINT api_tokens_name CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT api_tokens_projects CHECK (cardinality(projects) > 0)
);
-- A name means one token that is good.
CREATE UNIQUE INDEX api_tokens_one_a_name ON cronvec.api_tokens (name) WHERE revoked_at IS NULL;

-- How much of a project is embedded, as it was counted last. Counting reads all records: it is done again after a while
-- that grows with how long it took.
CREATE TABLE cronvec.coverage_counts (
    project_id  int    NOT NULL PRIMARY KEY REFERENCES cronvec.projects ON DELETE CASCADE,
    total       bigint NOT NULL,
    embedded    bigint NOT NULL,
    pending     bigint NOT NULL,
    quarantined bigint NOT NULL,
    percent     double precision NOT NULL,
    took_ms     bigint NOT NULL,
    counted_at  timestamptz NOT NULL
);

-- The jobs of a project by status, for lists and counts. By its name: claims go by its id, and are never led here.
CREATE INDEX job_queue_of_project ON cronvec.job_queue (project, status, id);

-- Throughput minute by minute, without reading the other metrics of the day.
CREATE INDEX performance_metrics_throughput ON cronvec.performance_metrics (timestamp) INCLUDE (metric, value, project)
    WHERE metric IN ('records_embedded', 'records_failed');
