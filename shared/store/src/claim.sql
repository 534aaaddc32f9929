-- claim_jobs
-- $1 job type, $2 spaces and $3 their endpoints, $4 how many, $5 the lease in seconds, $6 who claims, $7 a project or null,
-- $8 the token
WITH RECURSIVE wanted AS MATERIALIZED (
    SELECT s.space_id
    FROM unnest($2, $3) AS s (space_id, endpoint)
    WHERE NOT EXISTS (
        SELECT FROM cronvec.provider_pauses p
        WHERE p.endpoint = s.endpoint AND (p.circuit OR p.until > clock_timestamp()))
), expired AS MATERIALIZED (
    -- The lease of a worker that died: nobody else takes notice of it. The type isn't compared plainly, or the planner
    -- would take a table without statistics along the lanes' index, which has all that wait.
    SELECT j.id
    FROM cronvec.job_queue j
    WHERE j.status = 'PROCESSING' AND j.lease_expires_at <= clock_timestamp() AND j.job_type || '' = $1 AND NOT j.held
        AND j.space_id IN (SELECT space_id FROM wanted) AND ($7 IS NULL OR j.project_id = $7)
    ORDER BY j.lease_expires_at
    LIMIT $4
    FOR NO KEY UPDATE SKIP LOCKED
), free AS MATERIALIZED (
    SELECT $4 - count(*) AS slots FROM expired
), levels (level, priority) AS (
    -- The priorities that are in line, the highest first, found by skipping from one to the next.
    SELECT 0, (
        SELECT max(top.priority) FROM wanted w CROSS JOIN LATERAL (
            SELECT j.priority FROM cronvec.job_queue j
            WHERE j.job_type = $1 AND j.space_id = w.space_id AND j.status = 'PENDING' AND j.turn IS NOT NULL
                AND /*project*/
            ORDER BY j.priority DESC LIMIT 1) AS top)
    UNION ALL
    SELECT l.level + 1, (
        SELECT max(top.priority) FROM wanted w CROSS JOIN LATERAL (
            SELECT j.priority FROM cronvec.job_queue j
            WHERE j.job_type = $1 AND j.space_id = w.space_id AND j.status = 'PENDING' AND j.turn IS NOT NULL
                AND j.priority < l.priority AND /*project*/
            ORDER BY j.priority DESC LIMIT 1) AS top)
    FROM levels l
    WHERE l.priority IS NOT NULL AND l.level < 3
), tenths AS MATERIALIZED (
    -- Each tenth pick is the second level's, each hundredth the third's, each thousandth the fourth's; of a level that
    -- isn't there the last one's.
    SELECT l.priority, count(*) AS picks
    FROM (
        SELECT nextval(('cronvec.picks_' || lower($1))::regclass) AS pick
        FROM generate_series(1, (SELECT slots FROM free))
        WHERE EXISTS (SELECT FROM levels WHERE level = 1 AND priority IS NOT NULL)
    ) AS picks
    CROSS JOIN LATERAL (
        SELECT l.priority FROM levels l
        WHERE l.priority IS NOT NULL
            AND l.level <= CASE WHEN pick % 1000 = 0 THEN 3 WHEN pick % 100 = 0 THEN 2 ELSE 1 END
        ORDER BY l.level DESC LIMIT 1
    ) AS l
    WHERE pick % 10 = 0
    GROUP BY l.priority
), low AS MATERIALIZED (
    SELECT j.id
    FROM tenths t
    CROSS JOIN LATERAL (
        SELECT j.id
        FROM wanted w
        CROSS JOIN LATERAL (
            SELECT j.id, j.turn, j.scheduled_for
            FROM cronvec.job_queue j
            WHERE j.job_type = $1 AND j.space_id = w.space_id AND j.priority = t.priority
                AND j.status = 'PENDING' AND j.turn IS NOT NULL AND /*only*/
            ORDER BY j.turn, j.id
            LIMIT t.picks
            FOR NO KEY UPDATE OF j SKIP LOCKED
        ) AS j
        ORDER BY row_number() OVER (PARTITION BY w.space_id ORDER BY j.turn, j.id), j.scheduled_for, j.id
        LIMIT t.picks
    ) AS j
), line AS MATERIALIZED (
    -- Turns are counted space by space: among the spaces' first ones those that have waited longest go first.
    SELECT j.id
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT j.id, j.priority, j.turn, j.scheduled_for
        FROM cronvec.job_queue j
        WHERE j.job_type = $1 AND j.space_id = w.space_id AND j.status = 'PENDING' AND j.turn IS NOT NULL
            AND /*only*/
            AND j.id NOT IN (SELECT id FROM low)
        ORDER BY j.priority DESC, j.turn, j.id
        LIMIT (SELECT slots FROM free)
        FOR NO KEY UPDATE OF j SKIP LOCKED
    ) AS j
    ORDER BY j.priority DESC,
        row_number() OVER (PARTITION BY w.space_id, j.priority ORDER BY j.turn, j.id), j.scheduled_for, j.id
    LIMIT (SELECT slots FROM free) - (SELECT count(*) FROM low)
), chosen AS (
    SELECT id FROM expired UNION ALL SELECT id FROM low UNION ALL SELECT id FROM line
)
UPDATE cronvec.job_queue j
SET status = 'PROCESSING', turn = NULL, worker = $6,
    lease_token = $8, lease_expires_at = clock_timestamp() + make_interval(secs => $5),
    /*crash*/,
    started_at = coalesce(j.started_at, clock_timestamp()), claimed_at = clock_timestamp()
FROM chosen
WHERE j.id = chosen.id
RETURNING j.id, j.lease_token, j.project, j.project_id, j.space_id, j.lane, j.lanes, j.priority, j.attempts,
    j.max_attempts, j.backoff_ms, j.crashes, j.payload, j.cursor, j.progress
