-- Vectors for a table's own column, of which some rows refuse theirs.

-- Writes vectors into the column, all at once or, if a row refuses, row by row: each is a subtransaction of its own. Gives the
-- rows that got none, with the server's code and words. With the rights of whoever calls it: a worker's.
CREATE FUNCTION cronvec.fill_column(the_source int, ids text[], vectors @vector_schema@.vector[],
    OUT id text, OUT code text, OUT message text) RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hint text;
BEGIN
    -- A constraint that waits for the commit would fail all of them.
    SET CONSTRAINTS ALL IMMEDIATE;
    BEGIN
        EXECUTE format('SELECT cronvec.source_%s_set($1, $2)', the_source) USING ids, vectors;
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        IF cardinality(ids) = 1 THEN
            GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
            id := ids[1];
            message := format('%s (%s)', message, code) || coalesce('. ' || nullif(hint, ''), '');
            RETURN NEXT;
            RETURN;
        END IF;
    END;
    FOR nth IN 1 .. cardinality(ids) LOOP
        RETURN QUERY SELECT f.id, f.code, f.message FROM cronvec.fill_column(the_source, ids[nth:nth], vectors[nth:nth]) AS f;
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION cronvec.fill_column(int, text[], @vector_schema@.vector[]) FROM PUBLIC;

-- Workers with a role of their own are those that were granted the filling of records.
DO $$
DECLARE
    worker text;
BEGIN
    FOR worker IN
        SELECT DISTINCT quote_ident(pg_get_userbyid(a.grantee)) FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.pronamespace = 'cronvec'::regnamespace AND p.proname = 'fill_records' AND a.grantee NOT IN (0, p.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION cronvec.fill_column TO %s', worker);
    END LOOP;
END
$$;
