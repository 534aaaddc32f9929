-- What people decide by: how far a backfill is, and the failed attempts at a record.

-- Ticks that the furthest lane of a backfill has begun, and how many each may do; null: as many as it takes, or nobody
-- drives it. `found`: records of its project that were pending when it began.
ALTER TABLE cronvec.backfills
    ADD COLUMN iteration bigint,
    ADD COLUMN iterations bigint,
    ADD COLUMN found bigint NOT NULL DEFAULT 0;

-- step: concurrently
-- The failed attempts at one record. By its hash: an id may be too long for an index.
CREATE INDEX CONCURRENTLY audit_log_records ON cronvec.audit_log (hashtextextended(metadata->>'record', 0))
    WHERE category = 'record';
