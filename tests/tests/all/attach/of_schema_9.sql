-- A table with a column for vectors, attached as programs of schema 9 did it. OWNER is the table's owner, APP a role that
-- may write it.
CREATE TABLE public.articles (id int PRIMARY KEY, title text, v public.vector(256));
ALTER TABLE articles OWNER TO OWNER;
GRANT SELECT, INSERT, UPDATE, DELETE ON articles TO APP;
INSERT INTO articles SELECT n, 'title ' || n FROM generate_series(1, 20) AS n;
INSERT INTO cronvec.sources (project_id, relation, table_name, key_columns, text_sql, embedding_column)
    SELECT id, 'public.articles'::regclass, 'public.articles', ARRAY['id'], 'title', 'v' FROM cronvec.projects;

CREATE FUNCTION cronvec.source_1_text(title text) RETURNS text LANGUAGE sql RETURN title::text;
CREATE FUNCTION cronvec.source_1_take(ids text[], contents text[], metadatas jsonb[], gone text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN PERFORM cronvec.take_rows(1, ids, contents, metadatas, gone); END
$body$;
CREATE FUNCTION cronvec.source_1_truncated(emptied oid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    UPDATE cronvec.sources SET phase = 'rows', place = NULL, rows_seen = 0, gone = 0,
        epoch = CASE WHEN relation = emptied THEN nextval('cronvec.acceptance') ELSE epoch END,
        allow_deletes = allow_deletes OR relation <> emptied
    WHERE id = 1;
END
$body$;
CREATE FUNCTION cronvec.source_1_event() RETURNS trigger
LANGUAGE plpgsql SET lock_timeout = '500ms' SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    ids text[];
    contents text[];
    metadatas jsonb[];
    gone text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(n.cronvec_id), array_agg(n.cronvec_text), array_agg(n.cronvec_metadata)
            INTO ids, contents, metadatas FROM (
                SELECT t.id, t.id::text AS cronvec_id, cronvec.source_1_text(t.title) AS cronvec_text,
                    '{}'::jsonb AS cronvec_metadata FROM new_rows AS t WHERE true) AS n;
    ELSIF TG_OP = 'UPDATE' THEN
        SELECT array_agg(n.cronvec_id) FILTER (WHERE n.cronvec_id IS NOT NULL),
            array_agg(n.cronvec_text) FILTER (WHERE n.cronvec_id IS NOT NULL),
            array_agg(n.cronvec_metadata) FILTER (WHERE n.cronvec_id IS NOT NULL),
            array_agg(o.cronvec_id) FILTER (WHERE n.cronvec_id IS NULL)
            INTO ids, contents, metadatas, gone
            FROM (SELECT t.id, t.id::text AS cronvec_id, cronvec.source_1_text(t.title) AS cronvec_text,
                    '{}'::jsonb AS cronvec_metadata FROM new_rows AS t WHERE true) AS n
            FULL JOIN (SELECT t.id, t.id::text AS cronvec_id, cronvec.source_1_text(t.title) AS cronvec_text,
                    '{}'::jsonb AS cronvec_metadata FROM old_rows AS t WHERE true) AS o ON n.id = o.id
            WHERE n.cronvec_text IS DISTINCT FROM o.cronvec_text
                OR n.cronvec_metadata IS DISTINCT FROM o.cronvec_metadata
                OR n.cronvec_id IS NULL OR o.cronvec_id IS NULL;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(t.id::text) INTO gone FROM old_rows AS t;
    ELSE
        PERFORM cronvec.source_1_truncated(TG_RELID);
    END IF;
    IF ids IS NOT NULL OR gone IS NOT NULL THEN
        PERFORM cronvec.source_1_take(ids, contents, metadatas, gone);
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'cronvec did not note this % of %; the next reconcile finds it: %', TG_OP, TG_RELID::regclass, SQLERRM;
    RETURN NULL;
END
$body$;
CREATE FUNCTION cronvec.source_1_rows(after text[], max_rows int)
RETURNS TABLE (place text[], id text, passes boolean, content text, metadata jsonb, vector "public".vector)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $body$
BEGIN
    IF after IS NULL THEN
        RETURN QUERY SELECT ARRAY[t.id::text], t.id::text, p.passes, CASE WHEN p.passes THEN cronvec.source_1_text(t.title) END,
            CASE WHEN p.passes THEN '{}'::jsonb END, t.v
            FROM (SELECT * FROM public.articles AS t  ORDER BY t.id LIMIT max_rows) AS t
            CROSS JOIN LATERAL (SELECT coalesce(true, false)) AS p (passes);
    ELSE
        RETURN QUERY SELECT ARRAY[t.id::text], t.id::text, p.passes, CASE WHEN p.passes THEN cronvec.source_1_text(t.title) END,
            CASE WHEN p.passes THEN '{}'::jsonb END, t.v
            FROM (SELECT * FROM public.articles AS t WHERE (t.id) > (after[1]::int4) ORDER BY t.id LIMIT max_rows) AS t
            CROSS JOIN LATERAL (SELECT coalesce(true, false)) AS p (passes);
    END IF;
END
$body$;
CREATE FUNCTION cronvec.source_1_named(ids text[])
RETURNS TABLE (place text[], id text, passes boolean, content text, metadata jsonb, vector "public".vector)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RETURN QUERY SELECT ARRAY[t.id::text], t.id::text, p.passes, CASE WHEN p.passes THEN cronvec.source_1_text(t.title) END,
        CASE WHEN p.passes THEN '{}'::jsonb END, t.v
        FROM unnest(ids) AS i (id) CROSS JOIN LATERAL (
            SELECT * FROM public.articles AS t
            WHERE t.id = CASE WHEN i.id ~ '^-?[0-9]{1,9}$' THEN i.id::int8 END AND t.id::text = i.id LIMIT 1) AS t
        CROSS JOIN LATERAL (SELECT coalesce(true, false)) AS p (passes);
END
$body$;
CREATE FUNCTION cronvec.source_1_there(ids text[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RETURN QUERY SELECT i.id FROM unnest(ids) AS i (id) CROSS JOIN LATERAL (
        SELECT FROM public.articles AS t
        WHERE t.id = CASE WHEN i.id ~ '^-?[0-9]{1,9}$' THEN i.id::int8 END AND t.id::text = i.id AND true LIMIT 1) AS t;
END
$body$;
CREATE FUNCTION cronvec.source_1_count() RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN RETURN (SELECT count(*) FROM public.articles AS t WHERE true); END
$body$;
CREATE FUNCTION cronvec.source_1_lock(ids text[]) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RETURN QUERY
        WITH mine AS MATERIALIZED (
            SELECT i.id FROM unnest(ids) AS i (id) CROSS JOIN LATERAL (
                SELECT FROM public.articles AS t WHERE t.id::text = i.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS t
        )
        SELECT m.id FROM mine m
        UNION ALL
        SELECT i.id FROM unnest(ids) AS i (id) WHERE NOT EXISTS (SELECT FROM public.articles AS t WHERE t.id::text = i.id);
END
$body$;
CREATE FUNCTION cronvec.source_1_set(ids text[], vectors "public".vector[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    written bigint;
BEGIN
    UPDATE public.articles AS u SET v = n.vector FROM unnest(ids, vectors) AS n (id, vector) WHERE u.id::text = n.id;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$body$;

REVOKE EXECUTE ON FUNCTION cronvec.source_1_take, cronvec.source_1_truncated FROM PUBLIC;
GRANT USAGE ON SCHEMA cronvec TO OWNER, APP;
GRANT EXECUTE ON FUNCTION cronvec.source_1_take, cronvec.source_1_truncated TO OWNER, APP;
CREATE TRIGGER cronvec_1_insert AFTER INSERT ON public.articles REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION cronvec.source_1_event();
CREATE TRIGGER cronvec_1_update AFTER UPDATE ON public.articles REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION cronvec.source_1_event();
CREATE TRIGGER cronvec_1_delete AFTER DELETE ON public.articles REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION cronvec.source_1_event();
CREATE TRIGGER cronvec_1_truncate AFTER TRUNCATE ON public.articles
    FOR EACH STATEMENT EXECUTE FUNCTION cronvec.source_1_event();
GRANT CREATE ON SCHEMA cronvec TO OWNER;
ALTER FUNCTION cronvec.source_1_text OWNER TO OWNER;
ALTER FUNCTION cronvec.source_1_event OWNER TO OWNER;
ALTER FUNCTION cronvec.source_1_rows OWNER TO OWNER;
ALTER FUNCTION cronvec.source_1_named OWNER TO OWNER;
ALTER FUNCTION cronvec.source_1_there OWNER TO OWNER;
ALTER FUNCTION cronvec.source_1_count OWNER TO OWNER;
ALTER FUNCTION cronvec.source_1_lock OWNER TO OWNER;
ALTER FUNCTION cronvec.source_1_set OWNER TO OWNER;
REVOKE CREATE ON SCHEMA cronvec FROM OWNER;
-- Brought in line, and a record that came through the API.
SELECT cronvec.put_records(1, array_agg(id::text), array_agg(title), array_agg('{}'::jsonb)) FROM articles;
SELECT cronvec.put_record('articles', 'note', 'a note');
UPDATE cronvec.sources SET phase = 'idle', passes = 1;
