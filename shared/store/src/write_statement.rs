//! Owns the text of the fenced write of vectors. Refuses to run it: that is `vectors`'.

/// What a write does about the vector column of an attached table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnPart {
    /// There is none.
    Nothing,
    /// It is written, too, of the source with this number.
    Set(i32),
    /// It is written afterwards, by `column`: until then the records stay pending, though they are embedded.
    Later,
}

/// The write for one space: its partitions by name, so that the planner looks at no other.
///
/// A table that was filled a moment ago has no statistics yet, and a join over it may be planned as if it had one row.
/// So nothing here is left to the planner: rows are found by `LATERAL … LIMIT 1` or by `= ANY (array)`, which can only
/// go along the primary key (a slice of 300 out of 16,000 took 650 ms as a join, under 1 ms so).
///
/// Where the vectors go into a column of an attached table, too, its rows are locked before the records: a user's
/// transaction has its row first, so we are never the one that closes a circle. Who has locked a row keeps its record from
/// being written. The first chunk's vector is the row's.
///
/// `fence` makes `job`: a row while whoever writes may do so. Where it `meets_none`, it fails on what is there already: asking
/// for that takes the server a tenth of the whole.
pub(super) fn write_statement(fence: &str, space: i32, column: ColumnPart, meets_none: bool) -> String {
    let (if_there, if_shown) = if meets_none {
        ("", "")
    } else {
        (
            "ON CONFLICT DO NOTHING",
            "ON CONFLICT (space_id, project_id, record_id) DO UPDATE SET
                 content_hash = excluded.content_hash, chunks = excluded.chunks, embedded_at = excluded.embedded_at",
        )
    };
    let (mut rows, mut stored, mut firsts, mut set) = (String::new(), "", String::new(), "NULL::bigint".to_owned());
    if let ColumnPart::Set(source) = column {
        rows = format!(
            "rows AS MATERIALIZED (
                 SELECT r.id FROM job CROSS JOIN LATERAL cronvec.source_{source}_lock($4) AS r (id)
             ), "
        );
        stored = ", ordinal, embedding";
        firsts = format!(
            "firsts AS MATERIALIZED (
                 SELECT c.id, coalesce(s.embedding, (
                     SELECT t.embedding FROM cronvec.chunks_{space} t
                     WHERE t.space_id = {space} AND t.project_id = $3 AND t.record_id = c.id AND t.content_hash = c.hash
                         AND t.ordinal = 0)) AS embedding
                 FROM complete c LEFT JOIN stored s ON s.record_id = c.id AND s.ordinal = 0
             ), "
        );
        set = format!(
            "(SELECT cronvec.source_{source}_set(ARRAY(SELECT id FROM firsts), ARRAY(SELECT embedding FROM firsts))
              WHERE EXISTS (SELECT FROM firsts))"
        );
    }
    let held = match column {
        ColumnPart::Set(_) => "WHERE i.id = ANY (ARRAY(SELECT id FROM rows))",
        ColumnPart::Nothing | ColumnPart::Later => "",
    };
    let settled = match column {
        ColumnPart::Later => String::new(),
        ColumnPart::Nothing | ColumnPart::Set(_) => settle(space, "complete"),
    };
    format!(
        "WITH {fence}, {rows}locked AS MATERIALIZED (
             SELECT i.id, i.hash, i.chunks
             FROM job CROSS JOIN unnest($4::text[], $5::bytea[], $6::int[]) AS i (id, hash, chunks)
             CROSS JOIN LATERAL (
                 SELECT FROM cronvec.records r
                 WHERE r.project_id = $3 AND r.id = i.id AND r.content_hash = i.hash
                 LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r {held}
         ), stored AS (
             INSERT INTO cronvec.chunks_{space}
                 (space_id, project_id, record_id, content_hash, ordinal, content, chunk_hash, embedding)
             SELECT {space}, $3, c.id, c.hash, c.ordinal, c.content, c.chunk_hash, coalesce(c.embedding, twin.embedding)
             FROM (
                 -- Not in FROM, where all vectors would be copied into a table first.
                 SELECT unnest($7::text[]) AS id, unnest($12::bytea[]) AS hash, unnest($8::int[]) AS ordinal,
                     unnest($9::text[]) AS content, unnest($10::bytea[]) AS chunk_hash, unnest($11) AS embedding
             ) AS c
             LEFT JOIN LATERAL (
                 -- Not as the join's condition: that is asked after the look-up.
                 SELECT t.embedding FROM cronvec.chunks_{space} t
                 WHERE c.embedding IS NULL AND t.chunk_hash = c.chunk_hash LIMIT 1
             ) AS twin ON true
             -- A join would copy all vectors into its table; `IS TRUE` keeps it from becoming one.
             WHERE ((c.id, c.hash) IN (SELECT id, hash FROM locked)) IS TRUE AND (c.embedding IS NOT NULL OR twin.embedding IS NOT NULL)
             {if_there}
             RETURNING record_id{stored}
         ), now_there AS MATERIALIZED (
             SELECT record_id, count(*) AS chunks FROM stored GROUP BY record_id
         ), complete AS MATERIALIZED (
             SELECT l.id, l.hash, l.chunks
             FROM locked l LEFT JOIN now_there n ON n.record_id = l.id
             WHERE l.chunks = coalesce(n.chunks, 0)
                 OR l.chunks = coalesce(n.chunks, 0) + (
                     SELECT count(*) FROM cronvec.chunks_{space} c
                     WHERE c.space_id = {space} AND c.project_id = $3 AND c.record_id = l.id AND c.content_hash = l.hash)
         ), {firsts}shown AS (
             INSERT INTO cronvec.embedded_{space} AS e (space_id, project_id, record_id, content_hash, chunks)
             SELECT {space}, $3, id, hash, chunks FROM complete
             {if_shown}
         ), dropped AS (
             DELETE FROM cronvec.chunks_{space} c USING complete
             WHERE c.space_id = {space} AND c.project_id = $3 AND c.record_id = ANY (ARRAY(SELECT id FROM complete))
                 AND c.record_id = complete.id AND (c.content_hash <> complete.hash OR c.ordinal >= complete.chunks)
         ){settled}
         -- Each more part of this list is planned for every write.
         SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM stored), (SELECT array_agg(id) FROM complete),
             (SELECT count(*) FROM locked), {set}"
    )
}

/// The parts of a statement that settle the records whose `id` stands in another of its parts: nothing is left to do about
/// them, and nothing is wrong with them. $3 is the project.
pub(super) fn settle(space: i32, ids: &str) -> String {
    format!(
        ", settled AS (
             DELETE FROM cronvec.pending
             WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM {ids}))
         ), freed AS (
             DELETE FROM cronvec.quarantined_records
             WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM {ids}))
                 -- Where it is empty, it isn't about a text: the row of an attached table can't be read.
                 AND content_hash <> ''
         )"
    )
}
