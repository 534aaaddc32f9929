-- What attaching a table again needs to know, and vectors of records that left and may return.

-- What was made for the source, so that the same command finds nothing to do. Null: an older program made it.
ALTER TABLE cronvec.sources ADD COLUMN compiled text;

-- step: transaction
-- Rows that leave a table's --where, and return within a week with the same text, cost no request. No texts: they are cut
-- anew from the row.
CREATE TABLE cronvec.left_vectors (
    space_id   int         NOT NULL,
    chunk_hash bytea       NOT NULL,
    -- Whose record had it last.
    project_id int         NOT NULL REFERENCES cronvec.projects ON DELETE CASCADE,
    embedding  @vector_schema@.vector NOT NULL,
    left_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT left_vectors_pkey PRIMARY KEY (space_id, chunk_hash)
);
CREATE INDEX left_vectors_age ON cronvec.left_vectors (left_at);

-- step: transaction
ALTER TABLE cronvec.left_vectors ADD CONSTRAINT left_vectors_space FOREIGN KEY (space_id)
    REFERENCES cronvec.spaces ON DELETE CASCADE;
