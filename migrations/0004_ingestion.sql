-- A rejected record as it was handed in, so that it can be mended and sent again; of a very long one the beginning.
ALTER TABLE cronvec.ingest_rejects ADD COLUMN raw bytea;
