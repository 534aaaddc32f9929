-- What the pipeline stands on: projects, spaces, records, the pending set, the queue.
-- @vector_schema@ is the schema that the extension `vector` lives in.

-- One line of numbers for jobs and writes: the larger one was accepted later.
CREATE SEQUENCE cronvec.acceptance AS bigint;

CREATE TABLE cronvec.spaces (
    id              int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider        text NOT NULL,
    model           text NOT NULL,
    dimensions      int  NOT NULL,
    chunk_tokens    int  NOT NULL,
    chunk_overlap   int  NOT NULL,
    document_prefix text NOT NULL,
    query_prefix    text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT spaces_width CHECK (dimensions BETWEEN 1 AND 16000),
    CONSTRAINT spaces_chunking CHECK (chunk_tokens > 0 AND chunk_overlap >= 0 AND chunk_overlap < chunk_tokens),
    CONSTRAINT spaces_one_of_a_kind UNIQUE
        (provider, model, dimensions, chunk_tokens, chunk_overlap, document_prefix, query_prefix)
);

CREATE TABLE cronvec.projects (
    id           int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL,
    live_space   int  NOT NULL REFERENCES cronvec.spaces,
    next_space   int  REFERENCES cronvec.spaces,
    lanes        smallint NOT NULL DEFAULT 1,
    paused       boolean  NOT NULL DEFAULT false,
    -- Null: what the worker's settings say.
    max_attempts int,
    backoff_ms   int,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT projects_name UNIQUE (name),
    CONSTRAINT projects_name_length CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT projects_lanes CHECK (lanes BETWEEN 1 AND 64),
    CONSTRAINT projects_two_spaces CHECK (next_space IS DISTINCT FROM live_space),
    CONSTRAINT projects_attempts CHECK (max_attempts > 0),
    CONSTRAINT projects_backoff CHECK (backoff_ms >= 0)
);

-- A record, or, with no content, the tombstone of one. Workers lock these rows and never update them.
CREATE TABLE cronvec.records (
    project_id   int    NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    id           text   NOT NULL,
    content      text,
    metadata     jsonb  NOT NULL DEFAULT '{}',
    -- The first 16 bytes of the content's SHA-256; of a tombstone empty, which no text has.
    content_hash bytea  NOT NULL,
    -- Which of 64 the record falls into; lanes divide these among them.
    bucket       smallint NOT NULL,
    -- The write that gave it its present text: its number and, in an INGEST_DATA job, the position in it.
    accepted     bigint NOT NULL,
    position     int    NOT NULL DEFAULT 0,
    -- False: nothing embeds it until a backfill or a write that asks for it.
    embed        boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT records_pkey PRIMARY KEY (project_id, id),
    -- An index entry has 2,704 bytes at most.
    CONSTRAINT records_id_length CHECK (length(id) BETWEEN 1 AND 1000 AND octet_length(id) <= 2000),
    CONSTRAINT records_bucket CHECK (bucket BETWEEN 0 AND 63),
    CONSTRAINT records_tombstone CHECK ((content IS NULL) = (content_hash = ''::bytea))
) WITH (fillfactor = 90);

CREATE INDEX records_tombstones ON cronvec.records (accepted) WHERE content IS NULL;

-- The truth about what is left to do: the record's vectors in this space have yet to be brought in line with it.
CREATE TABLE cronvec.pending (
    space_id   int      NOT NULL REFERENCES cronvec.spaces,
    project_id int      NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    record_id  text     NOT NULL,
    bucket     smallint NOT NULL,
    priority   int      NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    attempts   int      NOT NULL DEFAULT 0,
    -- The operation that put it there: a job's number, or a backfill's.
    operation  bigint,
    CONSTRAINT pending_pkey PRIMARY KEY (space_id, project_id, record_id),
    CONSTRAINT pending_attempts CHECK (attempts >= 0),
    -- The line is ordered by its negative.
    CONSTRAINT pending_priority CHECK (priority > -2147483648)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2);

-- A slice reads along it: priority, then age.
CREATE INDEX pending_line ON cronvec.pending (space_id, project_id, (-priority), not_before, record_id, bucket);

-- The chunks and their vectors; one partition a space.
CREATE TABLE cronvec.chunks (
    space_id     int   NOT NULL,
    project_id   int   NOT NULL,
    record_id    text  NOT NULL,
    -- Of the record's content that the chunk was cut from.
    content_hash bytea NOT NULL,
    ordinal      int   NOT NULL,
    content      text  NOT NULL,
    -- Of the text that was embedded.
    chunk_hash   bytea NOT NULL,
    embedding    @vector_schema@.vector NOT NULL,
    embedded_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chunks_pkey PRIMARY KEY (space_id, project_id, record_id, content_hash, ordinal)
) PARTITION BY LIST (space_id);

CREATE INDEX chunks_same_text ON cronvec.chunks (chunk_hash);

-- Which set of chunks a record shows: the last one that was complete.
CREATE TABLE cronvec.embedded (
    space_id     int   NOT NULL,
    project_id   int   NOT NULL,
    record_id    text  NOT NULL,
    content_hash bytea NOT NULL,
    chunks       int   NOT NULL,
    embedded_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT embedded_pkey PRIMARY KEY (space_id, project_id, record_id)
) PARTITION BY LIST (space_id);

-- Records that stand aside, with the reason. A text that changed is free again.
CREATE TABLE cronvec.quarantined_records (
    space_id        int   NOT NULL REFERENCES cronvec.spaces,
    project_id      int   NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    record_id       text  NOT NULL,
    content_hash    bytea NOT NULL,
    reason          text  NOT NULL,
    message         text  NOT NULL,
    attempts        int   NOT NULL,
    last_attempt_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT quarantined_records_pkey PRIMARY KEY (project_id, record_id, space_id)
);

CREATE TABLE cronvec.job_queue (
    id               bigint PRIMARY KEY DEFAULT nextval('cronvec.acceptance'),
    job_type         text NOT NULL,
    project          text NOT NULL,
    project_id       int  NOT NULL,
    -- Of an INGEST_DATA job 0.
    space_id         int  NOT NULL DEFAULT 0,
    lane             smallint NOT NULL DEFAULT 0,
    lanes            smallint NOT NULL DEFAULT 1,
    status           text NOT NULL DEFAULT 'PENDING',
    priority         int  NOT NULL DEFAULT 0,
    attempts         int  NOT NULL DEFAULT 0,
    max_attempts     int  NOT NULL DEFAULT 3,
    backoff_ms       int  NOT NULL DEFAULT 10000,
    -- Workers that died holding it since it last got through a slice.
    crashes          int  NOT NULL DEFAULT 0,
    -- Its place in the line. Null while it isn't due, or held.
    turn             bigint,
    -- Its project is paused.
    held             boolean NOT NULL DEFAULT false,
    payload          jsonb,
    -- Of an INGEST_DATA job: how far it has come.
    cursor           jsonb,
    progress         jsonb,
    result           jsonb,
    idempotency_key  text,
    idempotency_hash bytea,
    scheduled_for    timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    completed_at     timestamptz,
    claimed_at       timestamptz,
    active_ms        bigint NOT NULL DEFAULT 0,
    lease_token      uuid,
    lease_expires_at timestamptz,
    worker           text,
    CONSTRAINT job_queue_type CHECK (job_type IN ('INGEST_DATA', 'VECTORIZE')),
    CONSTRAINT job_queue_status CHECK (status IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    CONSTRAINT job_queue_lease CHECK ((status = 'PROCESSING') = (lease_token IS NOT NULL)
        AND (lease_token IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT job_queue_line CHECK (turn IS NULL OR status = 'PENDING' AND NOT held),
    CONSTRAINT job_queue_end CHECK ((status IN ('COMPLETED', 'FAILED', 'CANCELLED')) = (completed_at IS NOT NULL)),
    CONSTRAINT job_queue_payload CHECK (status <> 'COMPLETED' OR payload IS NULL),
    CONSTRAINT job_queue_space CHECK ((job_type = 'INGEST_DATA') = (space_id = 0)),
    CONSTRAINT job_queue_lane CHECK (lanes BETWEEN 1 AND 64 AND lane BETWEEN 0 AND lanes - 1),
    CONSTRAINT job_queue_attempts CHECK (attempts >= 0 AND max_attempts > 0 AND backoff_ms >= 0 AND crashes >= 0)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- Who is due, in the order in which a claim takes them.
CREATE INDEX job_queue_line ON cronvec.job_queue (job_type, space_id, priority DESC, turn, id)
    WHERE status = 'PENDING' AND turn IS NOT NULL;
-- The last turn that a project has in a line, and the claims that are for one project.
CREATE INDEX job_queue_turns ON cronvec.job_queue (job_type, project_id, space_id, priority DESC, turn, id)
    WHERE status = 'PENDING' AND turn IS NOT NULL;
-- Who isn't due yet.
CREATE INDEX job_queue_delayed ON cronvec.job_queue (scheduled_for) WHERE status = 'PENDING' AND turn IS NULL AND NOT held;
-- Who is being worked on: as many as there are workers. The lease itself stays out of it, so that renewing one is cheap.
CREATE INDEX job_queue_processing ON cronvec.job_queue (id) WHERE status = 'PROCESSING';
-- Retention goes along it.
CREATE INDEX job_queue_ended ON cronvec.job_queue (completed_at) WHERE completed_at IS NOT NULL;
-- One active VECTORIZE job a project and lane.
CREATE UNIQUE INDEX job_queue_one_a_lane ON cronvec.job_queue (space_id, project_id, lane)
    WHERE job_type = 'VECTORIZE' AND status IN ('PENDING', 'PROCESSING');
CREATE UNIQUE INDEX job_queue_idempotency ON cronvec.job_queue (project_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Count the picks of claims; each tenth goes to a lower priority.
CREATE SEQUENCE cronvec.picks_ingest_data AS bigint CYCLE;
CREATE SEQUENCE cronvec.picks_vectorize AS bigint CYCLE;

-- A job that ended FAILED or CANCELLED keeps its lane from getting a new one.
CREATE TABLE cronvec.lane_holds (
    space_id   int      NOT NULL REFERENCES cronvec.spaces,
    project_id int      NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    lane       smallint NOT NULL,
    job_id     bigint   NOT NULL,
    reason     text     NOT NULL,
    -- 'infinity': until a person lifts it.
    until      timestamptz NOT NULL,
    CONSTRAINT lane_holds_pkey PRIMARY KEY (space_id, project_id, lane),
    CONSTRAINT lane_holds_reason CHECK (reason IN ('FAILED', 'CANCELLED'))
);

-- The records of an INGEST_DATA job whose payload is too large for its row: NDJSON, in pieces.
CREATE TABLE cronvec.staged (
    job_id     bigint NOT NULL REFERENCES cronvec.job_queue ON DELETE CASCADE,
    piece      int    NOT NULL,
    first_line int    NOT NULL,
    -- The number of each line, where they don't follow one another.
    lines      int[],
    body       bytea  NOT NULL,
    CONSTRAINT staged_pkey PRIMARY KEY (job_id, piece)
);

CREATE TABLE cronvec.ingest_rejects (
    job_id bigint NOT NULL REFERENCES cronvec.job_queue ON DELETE CASCADE,
    line   int    NOT NULL,
    id     text,
    reason text   NOT NULL,
    CONSTRAINT ingest_rejects_pkey PRIMARY KEY (job_id, line)
);

-- One row an endpoint (provider, base URL, model, key's fingerprint), for all instances.
CREATE TABLE cronvec.provider_pauses (
    endpoint   text PRIMARY KEY,
    until      timestamptz NOT NULL,
    -- True: only a person can mend it; it is tried again by one canary an hour.
    circuit    boolean NOT NULL DEFAULT false,
    message    text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Where the next tick goes on looking for due work, when there are more projects than one tick looks at.
CREATE TABLE cronvec.tick_cursor (
    name       text PRIMARY KEY,
    space_id   int NOT NULL DEFAULT 0,
    project_id int NOT NULL DEFAULT 0
);
INSERT INTO cronvec.tick_cursor (name) VALUES ('ensure');

CREATE TABLE cronvec.audit_log (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    timestamp    timestamptz NOT NULL DEFAULT now(),
    level        text NOT NULL,
    category     text NOT NULL,
    message      text NOT NULL,
    metadata     jsonb NOT NULL DEFAULT '{}',
    operation_id text,
    CONSTRAINT audit_log_level CHECK (level IN ('debug', 'info', 'warn', 'error'))
);
CREATE INDEX audit_log_timestamp ON cronvec.audit_log (timestamp);

CREATE TABLE cronvec.worker_status (
    name             text PRIMARY KEY,
    is_running       boolean NOT NULL DEFAULT false,
    last_seen_at     timestamptz NOT NULL DEFAULT now(),
    last_duration_ms bigint,
    last_result      jsonb
);

CREATE TABLE cronvec.performance_metrics (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    timestamp timestamptz NOT NULL DEFAULT now(),
    metric    text NOT NULL,
    value     double precision NOT NULL,
    project   text
);
CREATE INDEX performance_metrics_timestamp ON cronvec.performance_metrics (timestamp);

-- The next turn of a project in a line: behind its own jobs, so that projects take turns, and one behind the head, so
-- that newcomers never keep those in line from theirs. Also that of a job which had its slice: behind the whole line
-- it would stand behind all jobs of a project that has many.
CREATE FUNCTION cronvec.next_turn(the_type text, the_space int, the_project int, the_priority int) RETURNS bigint
LANGUAGE sql STABLE
RETURN greatest(
    (SELECT j.turn + 1 FROM cronvec.job_queue j
     WHERE j.job_type = the_type AND j.project_id = the_project AND j.space_id = the_space AND j.priority = the_priority
         AND j.status = 'PENDING' AND j.turn IS NOT NULL
     ORDER BY j.turn DESC LIMIT 1),
    (SELECT j.turn + 1 FROM cronvec.job_queue j
     WHERE j.job_type = the_type AND j.space_id = the_space AND j.priority = the_priority
         AND j.status = 'PENDING' AND j.turn IS NOT NULL
     ORDER BY j.turn LIMIT 1),
    0);

-- The oldest that could be claimed, and capped counts by status.
CREATE INDEX job_queue_waiting ON cronvec.job_queue (held, scheduled_for) WHERE status = 'PENDING';
CREATE INDEX job_queue_failed ON cronvec.job_queue (id) WHERE status = 'FAILED';
