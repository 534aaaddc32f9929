-- What attaching a table takes over from it and keeps, so that what has become of it since can be told; and rights that
-- are granted instead of inherited.

-- The columns that the table's functions name: what each was named, its place in the table, its type, and the options of
-- `attach` that use it.
ALTER TABLE cronvec.sources ADD COLUMN table_columns jsonb;

-- A type's name, the same in every session.
CREATE FUNCTION cronvec.type_name(the_type oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE n.nspname WHEN 'pg_catalog' THEN t.typname::text ELSE format('%I.%I', n.nspname, t.typname) END
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = the_type;
$$;
-- They are read from the functions themselves: an expression's parameters are the columns in it.
CREATE FUNCTION cronvec.columns_of_source(the_source int) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'number', a.attnum, 'type', cronvec.type_name(a.atttypid),
            'options', u.options) ORDER BY a.attnum)
        FROM cronvec.sources s
        JOIN pg_attribute a ON a.attrelid = s.relation AND a.attnum > 0 AND NOT a.attisdropped
        CROSS JOIN LATERAL (
            SELECT array_agg(o.option ORDER BY o.nth) FROM (
                SELECT 1, 'id' WHERE a.attname::text = ANY (s.key_columns)
                UNION ALL
                SELECT e.nth, e.option FROM (VALUES (2, 'text'), (3, 'metadata'), (4, 'where')) AS e (nth, option)
                    JOIN pg_proc p ON p.pronamespace = 'cronvec'::regnamespace
                        AND p.proname = format('source_%s_%s', s.id, e.option)
                    WHERE a.attname::text = ANY (p.proargnames)
                UNION ALL
                SELECT 5, 'embedding-column' WHERE a.attname::text = s.embedding_column
            ) AS o (nth, option)
        ) AS u (options)
        WHERE s.id = the_source AND u.options IS NOT NULL;
$$;
REVOKE EXECUTE ON FUNCTION cronvec.columns_of_source(int) FROM PUBLIC;

UPDATE cronvec.sources SET table_columns = cronvec.columns_of_source(id);

-- step: transaction
-- What owners of attached tables, searchers and workers with roles of their own call. PUBLIC may by PostgreSQL's default,
-- which `ALTER DEFAULT PRIVILEGES` may have taken away.
GRANT EXECUTE ON FUNCTION cronvec.assert_definer, cronvec.key_parts, cronvec.content_hash, cronvec.bucket,
    cronvec.project_id, cronvec.next_turn, cronvec.place, cronvec.hides_rows, cronvec.visible_ids, cronvec.cosine_distance,
    cronvec.width, cronvec.type_name TO PUBLIC;
