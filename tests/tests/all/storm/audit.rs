//! What is left after a storm and the calm behind it, looked at in SQL.

use std::collections::HashMap;

use cronvec_tests::provider;

use super::weather::{FAILING, REJECTED};
use super::writers::Expected;
use super::{Fate, Storm, WIDTH};

/// What a storm came to.
pub struct Audit {
    pub embedded: u64,
    pub quarantined: u64,
    pub crashes: usize,
    pub taken_back: usize,
    /// The queue and the crashes, for who looks for a fault.
    pub state: String,
}

pub async fn audit(storm: &Storm, expected: &Expected) -> Audit {
    nothing_is_lost(storm, expected).await;
    let (embedded, quarantined) = records_are_right(storm).await;
    rows_are_right(storm).await;
    nothing_is_left(storm).await;
    let (crashes, taken_back) = crashes_were_crashes(storm).await;
    let state = storm
        .place
        .text(
            "SELECT (SELECT string_agg(to_jsonb(j)::text, E'\\n' ORDER BY id) FROM cronvec.job_queue j) || E'\\n' ||
                 coalesce((SELECT string_agg(to_jsonb(l)::text || coalesce((SELECT name FROM public.claims c WHERE c.token = l.token), ''),
                     E'\\n' ORDER BY nth) FROM public.crash_log l), '')",
        )
        .await;
    Audit {
        embedded,
        quarantined,
        crashes,
        taken_back,
        state: state.unwrap_or_default(),
    }
}

/// Each record has the text that its writer gave it last.
async fn nothing_is_lost(storm: &Storm, expected: &Expected) {
    let rows = storm
        .place
        .ask(
            "SELECT p.name, r.id, r.content FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id
             WHERE r.content IS NOT NULL",
        )
        .await;
    let mut texts: HashMap<(String, String), String> =
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    for (record, may_be) in expected {
        let text = texts.remove(record);
        if !may_be.contains(&text) {
            storm.fault(format!("{record:?} has the text {text:?} and was given {may_be:?}"));
        }
    }
    for ((project, id), text) in texts {
        if project != "ads" {
            storm.fault(format!("nobody wrote {id} of {project}: {text}"));
        }
    }
}

/// Each live record is embedded from its current text, each chunk once and with its vector, or stands aside for the reason
/// that there is.
async fn records_are_right(storm: &Storm) -> (u64, u64) {
    let rows = storm
        .place
        .ask(
            "SELECT p.name || ' ' || r.id, r.content, q.reason, q.content_hash = r.content_hash, e.chunks, bool_or(v.stale),
                 array_remove(array_agg(v.content ORDER BY v.ordinal), NULL),
                 array_remove(array_agg(v.embedding::real[]::text ORDER BY v.ordinal), NULL)
             FROM cronvec.records r
             JOIN cronvec.projects p ON p.id = r.project_id
             JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
             LEFT JOIN cronvec.quarantined_records q
                 ON q.space_id = l.space_id AND q.project_id = p.id AND q.record_id = r.id
             LEFT JOIN cronvec.embedded e ON e.space_id = l.space_id AND e.project_id = p.id AND e.record_id = r.id
             LEFT JOIN cronvec.embeddings v ON v.project = p.name AND v.record_id = r.id
             WHERE r.content IS NOT NULL
             GROUP BY p.name, r.id, r.content, q.reason, q.content_hash, r.content_hash, e.chunks",
        )
        .await;
    let (mut embedded, mut quarantined) = (0, 0);
    for row in &rows {
        let (record, content): (&str, &str) = (row.get(0), row.get(1));
        let reason: Option<&str> = row.get(2);
        let due = match content {
            text if text.contains(REJECTED) => Some("rejected"),
            text if text.contains(FAILING) => Some("provider_error"),
            _ => None,
        };
        if reason != due {
            storm.fault(format!(
                "{record} is quarantined as {reason:?}, not as {due:?}: {content}"
            ));
        }
        let chunks: Vec<&str> = row.get(6);
        let vectors: Vec<&str> = row.get(7);
        for (chunk, vector) in chunks.iter().zip(&vectors) {
            if !is_vector_of(chunk, vector) {
                storm.fault(format!("{record} shows a chunk with another's vector: {chunk}"));
            }
        }
        let shown: Option<i32> = row.get(4);
        if shown.is_some_and(|shown| usize::try_from(shown) != Ok(chunks.len())) {
            storm.fault(format!("{record} shows {} of {shown:?} chunks", chunks.len()));
        }
        if reason.is_some() {
            quarantined += 1;
            if row.get::<_, Option<bool>>(3) != Some(true) {
                storm.fault(format!("{record} is quarantined for a text that it no longer has"));
            }
            continue;
        }
        embedded += 1;
        if row.get::<_, Option<bool>>(5) != Some(false) {
            storm.fault(format!("{record} has no current vector: {content}"));
        }
        let squeezed = |text: &str| text.split_whitespace().collect::<String>();
        if chunks.iter().map(|chunk| squeezed(chunk)).collect::<String>() != squeezed(content) {
            storm.fault(format!(
                "the chunks of {record} are not its text: {chunks:?}, {content}"
            ));
        }
    }
    (embedded, quarantined)
}

fn is_vector_of(text: &str, vector: &str) -> bool {
    let stored: Vec<f32> = vector
        .trim_matches(['{', '}'])
        .split(',')
        .filter_map(|number| number.parse().ok())
        .collect();
    let expected = provider::vector(text, WIDTH);
    let distance: f32 = stored.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum();
    stored.len() == WIDTH && distance < 1e-3
}

/// The attached table and its records agree, and its column has the vector of each first chunk.
async fn rows_are_right(storm: &Storm) {
    let rows = storm
        .place
        .ask(
            "SELECT coalesce(a.id::text, r.id), a.body, r.content, q.reason IS NOT NULL,
                 coalesce(a.embedding = v.embedding, false)
             FROM public.ads a
             FULL JOIN (
                 SELECT r.* FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id
                 WHERE p.name = 'ads' AND r.content IS NOT NULL
             ) AS r ON r.id = a.id::text
             LEFT JOIN cronvec.quarantine q ON q.project = 'ads' AND q.record_id = r.id
             LEFT JOIN cronvec.embeddings v ON v.project = 'ads' AND v.record_id = r.id AND v.ordinal = 0",
        )
        .await;
    if rows.is_empty() {
        storm.fault("the attached table is empty");
    }
    for row in rows {
        let id: &str = row.get(0);
        let (body, content): (Option<&str>, Option<&str>) = (row.get(1), row.get(2));
        if body != content {
            storm.fault(format!("row {id} has the text {body:?}, its record {content:?}"));
        }
        let (is_quarantined, is_right): (bool, bool) = (row.get(3), row.get(4));
        if !is_quarantined && !is_right {
            storm.fault(format!("row {id} has not its text's vector: {body:?}"));
        }
    }
}

/// Each gives what mustn't be there, a line a find.
const LEFT: [(&str, &str); 16] = [
    ("pending", "SELECT to_jsonb(w)::text FROM cronvec.pending w"),
    (
        "a job that isn't done",
        "SELECT to_jsonb(j)::text FROM cronvec.job_queue j WHERE status <> 'COMPLETED'",
    ),
    (
        "a job that was charged",
        "SELECT to_jsonb(j)::text FROM cronvec.job_queue j WHERE attempts > 0 OR crashes > 0",
    ),
    ("a paused project", "SELECT name FROM cronvec.projects WHERE paused"),
    ("a held lane", "SELECT to_jsonb(h)::text FROM cronvec.lane_holds h"),
    (
        "a rejected line",
        "SELECT to_jsonb(r)::text FROM cronvec.ingest_rejects r",
    ),
    ("a staged piece", "SELECT job_id::text FROM cronvec.staged"),
    (
        "a chunk that nothing shows",
        // What was embedded of a text in quarantine is kept for its next try.
        "SELECT DISTINCT c.project_id || ' ' || c.record_id || ': ' || c.content FROM cronvec.chunks c
         WHERE NOT EXISTS (
             SELECT FROM cronvec.embedded e
             WHERE e.space_id = c.space_id AND e.project_id = c.project_id AND e.record_id = c.record_id
                 AND e.content_hash = c.content_hash AND c.ordinal < e.chunks)
         AND NOT EXISTS (
             SELECT FROM cronvec.quarantined_records q
             WHERE q.space_id = c.space_id AND q.project_id = c.project_id AND q.record_id = c.record_id
                 AND q.content_hash = c.content_hash)",
    ),
    (
        "vectors of a deleted record",
        "SELECT e.project_id || ' ' || e.record_id FROM cronvec.embedded e
         WHERE NOT EXISTS (
             SELECT FROM cronvec.records r
             WHERE r.project_id = e.project_id AND r.id = e.record_id AND r.content IS NOT NULL)",
    ),
    (
        "a quarantine of a deleted record",
        "SELECT q.project_id || ' ' || q.record_id FROM cronvec.quarantined_records q
         WHERE NOT EXISTS (
             SELECT FROM cronvec.records r
             WHERE r.project_id = q.project_id AND r.id = q.record_id AND r.content IS NOT NULL)",
    ),
    (
        "a record that is noted as held",
        "SELECT to_jsonb(h)::text FROM cronvec.held_records h",
    ),
    (
        "a row that was only named",
        "SELECT to_jsonb(n)::text FROM cronvec.source_notes n",
    ),
    (
        "a deletion or a truncation that was only noted",
        "SELECT to_jsonb(g)::text FROM cronvec.source_gone g UNION ALL SELECT to_jsonb(t)::text FROM cronvec.source_truncated t",
    ),
    (
        "trouble with the table",
        "SELECT trouble FROM cronvec.sources WHERE trouble IS NOT NULL",
    ),
    (
        "a paused endpoint",
        "SELECT to_jsonb(p)::text FROM cronvec.provider_pauses p WHERE circuit OR until > clock_timestamp()",
    ),
    (
        "an error",
        "SELECT id || ': ' || (result->>'error') FROM cronvec.job_queue WHERE result ? 'error'",
    ),
];

async fn nothing_is_left(storm: &Storm) {
    for (what, sql) in LEFT {
        let found = storm.place.ask(sql).await;
        for row in found.iter().take(3) {
            storm.fault(format!("{what} is left: {}", row.get::<_, &str>(0)));
        }
    }
}

/// A crash stays counted only for a process that was killed. Of any other it was taken back, or the job got on without it
/// while the process was still there to say so. How many were counted and taken back.
async fn crashes_were_crashes(storm: &Storm) -> (usize, usize) {
    let rows = storm
        .place
        .ask(
            "SELECT l.job, l.token::text, l.what, extract(epoch FROM l.at)::float8, c.name
             FROM public.crash_log l LEFT JOIN public.claims c ON c.token = l.token ORDER BY l.nth",
        )
        .await;
    let (mut counted, mut taken_back) = (0, 0);
    for (nth, row) in rows.iter().enumerate() {
        let (job, token): (i64, Option<&str>) = (row.get(0), row.get(1));
        match row.get(2) {
            "counted" => counted += 1,
            "taken back" => {
                taken_back += 1;
                continue;
            }
            _ => continue,
        }
        let name: Option<&str> = row.get(4);
        let fate = name.and_then(|name| storm.fates.lock().expect("fates").get(name).copied());
        let ended = match fate {
            Some(Fate::Killed) => continue,
            Some(Fate::Ended(at)) => at,
            None => f64::MIN,
        };
        let is_mended = rows[nth..].iter().any(|later| match later.get(2) {
            "taken back" => later.get::<_, Option<&str>>(1) == token && later.get::<_, i64>(0) == job,
            "settled" => later.get::<_, i64>(0) == job && later.get::<_, f64>(3) < ended,
            _ => false,
        });
        if !is_mended {
            storm.fault(format!(
                "job {job} was counted a crash of {name:?} at {:.3}, which came to {fate:?}",
                row.get::<_, f64>(3)
            ));
        }
    }
    (counted, taken_back)
}
