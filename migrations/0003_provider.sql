-- How a record is cut whose chunks the provider found too long.

-- Every writer's transaction touches this table: rather fail, and be run again, than make them queue up.
SET LOCAL lock_timeout = '3s';

-- Tokens of its chunks where the space's own number proved too many, and the content's hash that this was found with:
-- another text is cut as the space says.
ALTER TABLE cronvec.pending
    ADD COLUMN cut_tokens int,
    ADD COLUMN cut_hash bytea,
    ADD CONSTRAINT pending_cut CHECK ((cut_tokens IS NULL) = (cut_hash IS NULL) AND cut_tokens > 0);
