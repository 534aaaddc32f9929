-- claim_jobs
-- $1 job type, $2 spaces and $3 their endpoints, $4 how many, $5 the lease in seconds, $6 who claims, $7 a project or null
WITH RECURSIVE wanted AS MATERIALIZED (
    SELECT s.space_id
    FROM unnest($2, $3) AS s (space_id, endpoint)
    WHERE NOT EXISTS (
        SELECT FROM cronvec.provider_pauses p WHERE p.endpoint = s.endpoint AND p.until > clock_timestamp())
), expired AS MATERIALIZED (
    -- The lease of a worker that died: nobody else takes notice of it.
    SELECT j.id
    FROM cronvec.job_queue j
    WHERE j.status = 'PROCESSING' AND NOT j.held AND j.lease_expires_at <= clock_timestamp() AND j.job_type = $1
        AND j.space_id IN (SELECT space_id FROM wanted) AND ($7 IS NULL OR j.project_id = $7)
    ORDER BY j.lease_expires_at
    LIMIT $4
    FOR NO KEY UPDATE SKIP LOCKED
), free AS MATERIALIZED (
    SELECT $4 - count(*) AS slots FROM expired
), levels (space_id, level, priority) AS (
    -- The priorities that are in line, the highest first, found by skipping from one to the next.
    SELECT w.space_id, 0, (
        SELECT max(j.priority) FROM cronvec.job_queue j
        WHERE j.job_type = $1 AND j.space_id = w.space_id AND j.status = 'PENDING' AND j.turn IS NOT NULL AND NOT j.held)
    FROM wanted w
    UNION ALL
    SELECT l.space_id, l.level + 1, (
        SELECT max(j.priority) FROM cronvec.job_queue j
        WHERE j.job_type = $1 AND j.space_id = l.space_id AND j.status = 'PENDING' AND j.turn IS NOT NULL AND NOT j.held
            AND j.priority < l.priority)
    FROM levels l
    WHERE l.priority IS NOT NULL AND l.level < 3
), tenths AS MATERIALIZED (
    -- Each tenth pick is the second level's, each hundredth the third's, each thousandth the fourth's.
    SELECT CASE WHEN pick % 1000 = 0 THEN 3 WHEN pick % 100 = 0 THEN 2 ELSE 1 END AS level, count(*) AS picks
    FROM (
        SELECT nextval(('cronvec.picks_' || lower($1))::regclass) AS pick
        FROM generate_series(1, (SELECT slots FROM free))
        WHERE EXISTS (SELECT FROM levels WHERE level = 1 AND priority IS NOT NULL)
    ) AS picks
    WHERE pick % 10 = 0
    GROUP BY 1
), low AS MATERIALIZED (
    SELECT j.id
    FROM tenths t
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (l.space_id) l.space_id, l.priority
        FROM levels l
        WHERE l.priority IS NOT NULL AND l.level BETWEEN 1 AND t.level
        ORDER BY l.space_id, l.level DESC
    ) l
    CROSS JOIN LATERAL (
        SELECT j.id
        FROM cronvec.job_queue j
        WHERE j.job_type = $1 AND j.space_id = l.space_id AND j.priority = l.priority
            AND j.status = 'PENDING' AND j.turn IS NOT NULL AND NOT j.held AND /*only*/
        ORDER BY j.turn, j.id
        LIMIT t.picks
        FOR NO KEY UPDATE OF j SKIP LOCKED
    ) j
    LIMIT (SELECT slots FROM free)
), line AS MATERIALIZED (
    SELECT j.id
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT j.id, j.priority, j.turn
        FROM cronvec.job_queue j
        WHERE j.job_type = $1 AND j.space_id = w.space_id
            AND j.status = 'PENDING' AND j.turn IS NOT NULL AND NOT j.held AND /*only*/
        ORDER BY j.priority DESC, j.turn, j.id
        LIMIT (SELECT slots FROM free)
        FOR NO KEY UPDATE OF j SKIP LOCKED
    ) j
    ORDER BY j.priority DESC, j.turn, j.id
    LIMIT (SELECT slots FROM free) - (SELECT count(*) FROM low)
), chosen AS (
    SELECT id FROM expired UNION SELECT id FROM low UNION SELECT id FROM line
)
UPDATE cronvec.job_queue j
SET status = 'PROCESSING', turn = NULL, worker = $6,
    lease_token = gen_random_uuid(), lease_expires_at = clock_timestamp() + make_interval(secs => $5),
    crashes = j.crashes + (j.status = 'PROCESSING')::int,
    started_at = coalesce(j.started_at, clock_timestamp()), claimed_at = clock_timestamp()
FROM chosen
WHERE j.id = chosen.id
RETURNING j.id, j.lease_token, j.project, j.project_id, j.space_id, j.lane, j.lanes, j.priority, j.attempts,
    j.max_attempts, j.backoff_ms, j.crashes, j.payload, j.cursor, j.progress
