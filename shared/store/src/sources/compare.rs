//! Owns the comparison of rows with their records, and what follows from it, as one statement. Refuses to say which rows.

/// $1 is for `from`; $2 the project, $3 whether vectors that are there are adopted, $4 whether the column is ours to fill,
/// $5 the source, $6 the number before which records of another origin are taken over, $7 the most bytes of a text.
///
/// A record of another origin is only touched by a row that is a record: it becomes that row's. A row that isn't one says
/// nothing about it. A row that can't be read is quarantined, and its record stays as it is.
///
/// With `checks` the column is compared with the record's vector, too; else it is only looked at where it is empty, so that
/// no vector is read.
///
/// Gives the number of rows, the last one's place, how many were written, how many adopted, how many rows are to be
/// embedded, those whose column isn't as it should be though they are, how many rows there were, and the last one's id.
pub(super) fn statement(from: &str, live: i32, checks: bool) -> String {
    let is_wrong = if checks {
        format!(
            "(c.vector IS NULL OR NOT cronvec.same_vector(c.vector, (
                 SELECT x.embedding FROM cronvec.chunks_{live} x
                 WHERE x.space_id = {live} AND x.project_id = $2 AND x.record_id = c.id AND x.content_hash = c.content_hash
                     AND x.ordinal = 0 LIMIT 1)))"
        )
    } else {
        "c.vector IS NULL".to_owned()
    };
    format!(
        "WITH page AS MATERIALIZED (
                     SELECT p.*, p.reason IS NOT NULL AS raises, b.reason IS NOT NULL AS blank,
                         coalesce(p.reason, b.reason) AS why,
                         coalesce(p.message, CASE b.reason
                             WHEN 'no_text' THEN 'the row has no text'
                             WHEN 'no_id' THEN 'the key of the row is empty or has more than 1000 characters, so it can be no record''s id'
                             WHEN 'too_large' THEN format('the text has %s bytes, MAX_CONTENT_BYTES allows %s', octet_length(p.content), $7)
                         END) AS said
                     FROM {from} AS p
                     CROSS JOIN LATERAL (SELECT CASE
                         WHEN p.reason IS NOT NULL OR NOT p.passes THEN NULL
                         WHEN NOT cronvec.is_key(p.id) THEN 'no_id'
                         WHEN coalesce(btrim(p.content, E' \\t\\n\\r'), '') = '' THEN 'no_text'
                         WHEN octet_length(p.content) > $7 THEN 'too_large' END) AS b (reason)
                 ), compared AS MATERIALIZED (
                     SELECT p.*, r.accepted, r.content_hash, r.source_id, e.content_hash AS shown_hash,
                         CASE
                             WHEN p.raises THEN false
                             WHEN (NOT p.passes OR p.blank) AND r.content_hash <> ''
                                 AND (r.source_id = $5 OR r.accepted < $6) IS NOT TRUE THEN false
                             WHEN NOT p.passes THEN r.content_hash <> ''
                             WHEN p.blank THEN coalesce(r.content_hash, '') <> '' OR NOT EXISTS (
                                 SELECT FROM cronvec.quarantined_records q
                                 WHERE q.project_id = $2 AND q.record_id = p.id AND q.space_id = {live} AND q.reason = p.why)
                             ELSE r.content_hash IS DISTINCT FROM cronvec.content_hash(p.content)
                                 OR r.metadata IS DISTINCT FROM coalesce(p.metadata, '{{}}')
                         END AS differs
                     FROM page p
                     LEFT JOIN LATERAL (
                         SELECT r.accepted, r.content_hash, r.metadata, r.source_id FROM cronvec.records r
                         WHERE r.project_id = $2 AND r.id = p.id LIMIT 1) AS r ON true
                     LEFT JOIN LATERAL (
                         SELECT e.content_hash FROM cronvec.embedded_{live} e
                         WHERE e.space_id = {live} AND e.project_id = $2 AND e.record_id = p.id LIMIT 1) AS e ON true
                 ), fresh AS MATERIALIZED (
                     SELECT c.* FROM compared c WHERE c.differs AND c.accepted IS NULL AND NOT c.blank
                 ), filled AS MATERIALIZED (
                     SELECT f.* FROM cronvec.fill_records($2, ARRAY(SELECT id FROM fresh), ARRAY(SELECT content FROM fresh),
                         ARRAY(SELECT metadata FROM fresh),
                         ARRAY(SELECT CASE WHEN $3 THEN vector END FROM fresh)) AS f
                     WHERE EXISTS (SELECT FROM fresh)
                 ), others AS MATERIALIZED (
                     SELECT c.* FROM compared c WHERE c.differs AND c.accepted IS NOT NULL
                 ), mine AS MATERIALIZED (
                     SELECT o.* FROM others o
                     WHERE o.id = ANY (ARRAY(SELECT cronvec.still_compared($2,
                         ARRAY(SELECT id FROM others), ARRAY(SELECT accepted FROM others))))
                 ), taken AS MATERIALIZED (
                     SELECT cronvec.take_rows($2, ARRAY(SELECT id FROM mine WHERE passes AND NOT blank),
                         ARRAY(SELECT content FROM mine WHERE passes AND NOT blank),
                         ARRAY(SELECT metadata FROM mine WHERE passes AND NOT blank),
                         ARRAY(SELECT id FROM mine WHERE NOT passes OR blank))::text AS done
                     WHERE EXISTS (SELECT FROM mine)
                 ), odd AS MATERIALIZED (
                     -- Nothing is deleted where nothing was: a record that a user makes meanwhile isn't ours to bury.
                     SELECT c.id, c.why, c.said FROM compared c
                     WHERE (c.differs AND c.blank AND c.passes
                             AND (c.accepted IS NULL OR c.id = ANY (ARRAY(SELECT id FROM mine))))
                         OR (c.raises AND NOT EXISTS (
                             SELECT FROM cronvec.quarantined_records q
                             WHERE q.project_id = $2 AND q.record_id = c.id AND q.space_id = {live} AND q.reason = c.why
                                 AND q.message = c.said))
                 ), aside AS MATERIALIZED (
                     SELECT cronvec.set_aside($2, ARRAY(SELECT id FROM odd), ARRAY(SELECT why FROM odd),
                         ARRAY(SELECT said FROM odd))::text
                     WHERE EXISTS (SELECT FROM odd) AND (SELECT count(*) FROM taken) >= 0
                 ), freed AS (
                     -- What a row was quarantined for, and not its text.
                     DELETE FROM cronvec.quarantined_records q
                     WHERE EXISTS (SELECT FROM cronvec.quarantined_records x WHERE x.project_id = $2)
                         AND q.project_id = $2 AND q.content_hash = ''
                         AND q.record_id = ANY (ARRAY(SELECT id FROM page WHERE passes AND NOT blank AND NOT raises))
                 ), unclaimed AS MATERIALIZED (
                     SELECT c.id FROM compared c
                     WHERE c.passes AND NOT c.blank AND NOT c.raises AND NOT c.differs AND c.source_id IS DISTINCT FROM $5
                 ), claimed AS MATERIALIZED (
                     SELECT cronvec.claim_records($2, ARRAY(SELECT id FROM unclaimed))::text
                     WHERE EXISTS (SELECT FROM unclaimed)
                 )
                 SELECT (SELECT count(*) FROM page), (SELECT place FROM page OFFSET greatest((SELECT count(*) FROM page) - 1, 0) LIMIT 1),
                     coalesce((SELECT filled FROM filled), 0) + (SELECT count(*) FROM mine) + (SELECT count(*) - count(*) FROM taken)
                         + (SELECT count(*) - count(*) FROM aside) + (SELECT count(*) - count(*) FROM claimed),
                     coalesce((SELECT adopted FROM filled), 0),
                     (SELECT count(*) FROM page WHERE passes),
                     ARRAY(SELECT c.id FROM compared c WHERE $4 AND c.passes AND NOT c.raises AND c.content_hash = c.shown_hash AND {is_wrong}),
                     (SELECT found FROM page LIMIT 1),
                     (SELECT id FROM page OFFSET greatest((SELECT count(*) FROM page) - 1, 0) LIMIT 1)"
    )
}
