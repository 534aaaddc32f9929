//! A queue in which there is much to see: every status, a day of throughput, long and foreign text.

use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};

use super::Api;

/// What anybody may put into names, ids and errors.
pub const MARKUP: &str = "<img src=x onerror=alert(1)><script>alert(2)</script>";
pub const ARABIC: &str = "مقالات عن الزراعة";
const LONG: &str = "the-archive-of-everything-that-was-ever-written-about-tomatoes-and-how-they-are-watered-in-summer";

/// The tables filled as a day's work leaves them; what has to be consistent is done by the system itself.
pub async fn busy() -> Api {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    for project in ["handbook", "support-tickets", ARABIC, LONG] {
        system.create_project(project).await;
    }
    system.put_many(PROJECT, 220, "Watering tomatoes").await;
    system.put_many("handbook", 60, "A chapter").await;
    system.vectorize().await;
    system.put_many("support-tickets", 90, "A ticket").await;
    system.put_many("handbook", 25, "A chapter, written anew,").await;
    system.put_many(ARABIC, 12, "الري").await;
    drop(provider);
    system.run_sql(FILL).await;
    let errors = format!(
        "UPDATE cronvec.job_queue SET result = jsonb_build_object('error', CASE id % 3
             WHEN 0 THEN 'openai: 401 Incorrect API key provided; see https://platform.openai.com/account/api-keys'
             WHEN 1 THEN 'a row that no parser understands: {MARKUP} at byte 4,294,967,295 of a line without a single space'
             ELSE '{ARABIC}: ' || repeat('0123456789abcdef', 12) END)
         WHERE status = 'FAILED'"
    );
    system.run_sql(&errors).await;
    Api::of(system).await
}

const FILL: &str = "
INSERT INTO cronvec.job_queue (job_type, project, project_id, status, priority, attempts, progress, result, created_at,
    scheduled_for, started_at, completed_at, active_ms)
SELECT 'INGEST_DATA', p.name, p.id, s.status, (n % 3 - 1) * 10,
    CASE s.status WHEN 'FAILED' THEN 3 WHEN 'CANCELLED' THEN 1 ELSE 0 END,
    jsonb_build_object('current', 1000, 'total', 1000, 'message', 'stored'),
    CASE s.status WHEN 'COMPLETED' THEN jsonb_build_object('savedCount', 940 + n, 'skippedCount', n, 'rejected', '[]'::jsonb,
        'activeMs', 800 + 37 * n) END,
    now() - n * interval '4 minutes', now() - n * interval '4 minutes', now() - n * interval '4 minutes' + interval '20 seconds',
    now() - n * interval '4 minutes' + interval '22 seconds', 800 + 37 * n
FROM generate_series(40, 1, -1) AS n
CROSS JOIN LATERAL (SELECT CASE WHEN n % 7 = 3 THEN 'FAILED' WHEN n % 11 = 5 THEN 'CANCELLED' ELSE 'COMPLETED' END) AS s (status)
JOIN LATERAL (SELECT name, id FROM cronvec.projects ORDER BY id OFFSET n % 5 LIMIT 1) AS p ON true;

INSERT INTO cronvec.job_queue (job_type, project, project_id, space_id, status, progress, created_at, scheduled_for, started_at,
    claimed_at, lease_token, lease_expires_at, worker)
SELECT 'VECTORIZE', p.name, p.id, (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = p.id AND l.role = 'live'), 'PROCESSING',
    jsonb_build_object('current', 130, 'total', 250, 'message', 'embedding'), now() - interval '90 seconds',
    now() - interval '90 seconds', now() - interval '42 seconds', now() - interval '42 seconds', gen_random_uuid(),
    now() + interval '50 seconds', 'vectorization i-0b7 7c2f'
FROM cronvec.projects p WHERE p.name = 'support-tickets';

INSERT INTO cronvec.job_queue (job_type, project, project_id, status, priority, attempts, payload, result, created_at, scheduled_for, started_at)
SELECT 'INGEST_DATA', p.name, p.id, 'PENDING', 10 * (n % 2), n % 2, '{\"records\": []}',
    CASE WHEN n % 2 = 1 THEN '{\"error\": \"the worker ran into a bug\"}'::jsonb END,
    now() - interval '6 minutes' + n * interval '20 seconds', now() - interval '6 minutes' + (n % 2) * interval '7 minutes', NULL
FROM generate_series(1, 4) AS n JOIN cronvec.projects p ON p.name = 'handbook';

INSERT INTO cronvec.performance_metrics (timestamp, metric, value, project)
SELECT now() - n * interval '1 minute', 'records_embedded', round(420 + 260 * sin(n / 7.0) + 90 * sin(n * 1.7)), 'handbook'
FROM generate_series(1, 59) AS n WHERE n NOT BETWEEN 31 AND 36;
INSERT INTO cronvec.performance_metrics (timestamp, metric, value, project)
SELECT now() - n * interval '1 minute', 'records_failed', 40 + n, 'handbook' FROM generate_series(28, 30) AS n;
INSERT INTO cronvec.performance_metrics (timestamp, metric, value, project)
SELECT now() - n * interval '1 hour', 'records_embedded', round(19000 + 12000 * sin(n / 4.0)), 'handbook'
FROM generate_series(2, 23) AS n;

INSERT INTO cronvec.quarantined_records (space_id, project_id, record_id, content_hash, reason, message, attempts)
SELECT r.space, r.project_id, r.id, r.content_hash, CASE WHEN r.nth % 3 = 0 THEN 'rejected' ELSE 'too_long' END,
    CASE WHEN r.nth % 3 = 0 THEN 'the provider rejects this input' ELSE 'one word alone has more tokens than the model reads' END, 3
FROM (SELECT r.*, (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = p.id AND l.role = 'live') AS space, row_number() OVER (ORDER BY r.id) AS nth
      FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id WHERE p.name = 'support-tickets') AS r WHERE r.nth <= 9;
DELETE FROM cronvec.pending w USING cronvec.quarantined_records q
WHERE q.space_id = w.space_id AND q.project_id = w.project_id AND q.record_id = w.record_id;

INSERT INTO cronvec.worker_status (name, is_running, last_seen_at, last_duration_ms, last_result) VALUES
    ('ingestion', false, now() - interval '12 seconds', 840, '{\"success\": true, \"records\": 940}'),
    ('cleanup', false, now() - interval '7 hours', 1260, '{\"success\": true, \"deletedCount\": 1204}')
ON CONFLICT (name) DO NOTHING;
UPDATE cronvec.worker_status SET is_running = true WHERE name = 'vectorization';

INSERT INTO cronvec.provider_pauses (endpoint, until, message)
VALUES ('openai|https://api.openai.com/v1|text-embedding-3-small|key 4f0c', now() + interval '3 minutes',
    '429 Rate limit reached for requests; retry after 180 s');
UPDATE cronvec.projects SET paused = true WHERE name = 'handbook';
";
