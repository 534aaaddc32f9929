//! Owns the comparison of rows with their records, and what follows from it, as one statement. Refuses to say which rows.

/// $1 is for `from`; $2 the project, $3 whether vectors that are there are adopted, $4 whether the column is ours to fill,
/// $5 the source, $6 the number before which records of another origin are taken over.
///
/// A record of another origin is only touched by a row that is a record: it becomes that row's. A row that isn't one says
/// nothing about it.
///
/// Gives the number of rows, the last one's place, how many were written, how many adopted, how many rows are to be
/// embedded, and those whose column is empty though they are.
pub(super) fn statement(from: &str, live: i32) -> String {
    format!(
        "WITH page AS MATERIALIZED (
                     SELECT p.*, coalesce(btrim(p.content, E' \\t\\n\\r'), '') = '' AS blank
                     FROM {from} AS p
                 ), compared AS MATERIALIZED (
                     SELECT p.*, r.accepted, r.content_hash, r.source_id, e.content_hash AS shown_hash,
                         CASE
                             WHEN (NOT p.passes OR p.blank) AND r.content_hash <> ''
                                 AND (r.source_id = $5 OR r.accepted < $6) IS NOT TRUE THEN false
                             WHEN NOT p.passes THEN r.content_hash <> ''
                             WHEN p.blank THEN coalesce(r.content_hash, '') <> '' OR NOT EXISTS (
                                 SELECT FROM cronvec.quarantined_records q
                                 WHERE q.project_id = $2 AND q.record_id = p.id AND q.space_id = {live})
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
                 ), aside AS MATERIALIZED (
                     -- Nothing is deleted where nothing was: a record that a user makes meanwhile isn't ours to bury.
                     SELECT cronvec.set_aside_blank($2, ARRAY(
                         SELECT c.id FROM compared c WHERE c.differs AND c.accepted IS NULL AND c.passes AND c.blank))::text
                 ), others AS MATERIALIZED (
                     SELECT c.* FROM compared c WHERE c.differs AND c.accepted IS NOT NULL
                 ), mine AS MATERIALIZED (
                     SELECT o.* FROM others o
                     WHERE o.id = ANY (ARRAY(SELECT cronvec.still_compared($2,
                         ARRAY(SELECT id FROM others), ARRAY(SELECT accepted FROM others))))
                 ), taken AS MATERIALIZED (
                     SELECT cronvec.take_rows($2, ARRAY(SELECT id FROM mine WHERE passes),
                         ARRAY(SELECT content FROM mine WHERE passes), ARRAY(SELECT metadata FROM mine WHERE passes),
                         ARRAY(SELECT id FROM mine WHERE NOT passes))::text AS done
                     WHERE EXISTS (SELECT FROM mine)
                 ), unclaimed AS MATERIALIZED (
                     SELECT c.id FROM compared c
                     WHERE c.passes AND NOT c.blank AND NOT c.differs AND c.source_id IS DISTINCT FROM $5
                 ), claimed AS MATERIALIZED (
                     SELECT cronvec.claim_records($2, ARRAY(SELECT id FROM unclaimed))::text
                     WHERE EXISTS (SELECT FROM unclaimed)
                 )
                 SELECT (SELECT count(*) FROM page), (SELECT place FROM page OFFSET greatest((SELECT count(*) FROM page) - 1, 0) LIMIT 1),
                     coalesce((SELECT filled FROM filled), 0) + (SELECT count(*) FROM mine) + (SELECT count(*) - count(*) FROM taken)
                         + (SELECT count(*) - count(*) FROM aside) + (SELECT count(*) - count(*) FROM claimed),
                     coalesce((SELECT adopted FROM filled), 0),
                     (SELECT count(*) FROM page WHERE passes),
                     ARRAY(SELECT id FROM compared WHERE $4 AND passes AND vector IS NULL AND content_hash = shown_hash)"
    )
}
