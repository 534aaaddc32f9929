//! Owns bodies that are on their way: staged piece by piece, each in a statement of its own, where nobody reads them,
//! until they are published at once. Refuses to hold anything while the sender is waited for.

use deadpool_postgres::Transaction;
use tokio_postgres::types::Type;

use super::bodies::{Body, PIECES};
use super::staged::join;
use super::{Store, StoreError};

/// Numbers of uploads that a job may have, drawn by lot.
const MOST_UPLOADS: i32 = 32_767;
/// Lots that are drawn before a job is said to have too many uploads.
const DRAWS: u32 = 20;

/// A body that is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upload {
    pub job_id: i64,
    body: i32,
    number: i32,
}

impl Upload {
    /// Where its pieces stand, below all that are read.
    fn first(self) -> i32 {
        -self.number * PIECES
    }

    fn last(self) -> i32 {
        self.first() + (PIECES - 1)
    }
}

/// What became of a whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    New,
    /// It was there already.
    Same,
    /// Another one of its number was.
    Another,
    /// The job takes no bodies any more.
    Closed,
}

impl Store {
    /// `None`: the job isn't open.
    pub(super) async fn begin_upload(&self, job_id: i64, body: i32) -> Result<Option<Upload>, StoreError> {
        for _ in 0..DRAWS {
            let row = self
                .query_one(
                    "WITH open AS MATERIALIZED (
                         SELECT job_id FROM cronvec.open_jobs WHERE job_id = $1
                     ), begun AS (
                         INSERT INTO cronvec.uploads (job_id, upload, body)
                         SELECT job_id, 1 + floor(random() * $3)::int, $2 FROM open
                         ON CONFLICT DO NOTHING RETURNING upload
                     )
                     SELECT EXISTS (SELECT FROM open), (SELECT upload FROM begun)",
                    &[(&job_id, Type::INT8), (&body, Type::INT4), (&MOST_UPLOADS, Type::INT4)],
                )
                .await?;
            match (row.get(0), row.get::<_, Option<i32>>(1)) {
                (false, _) => return Ok(None),
                (true, Some(number)) => return Ok(Some(Upload { job_id, body, number })),
                // The number is another upload's.
                (true, None) => {}
            }
        }
        Err(StoreError::Conflict(format!(
            "job {job_id} has too many bodies on their way; send this one again in a while"
        )))
    }

    /// False: the upload was given up, or its job closed, meanwhile.
    pub(super) async fn stage_piece(
        &self,
        upload: Upload,
        nth: i32,
        lines: &[i32],
        records: &[Vec<u8>],
    ) -> Result<bool, StoreError> {
        let staged = self
            .execute(
                "WITH mine AS (
                     UPDATE cronvec.uploads SET touched_at = clock_timestamp() WHERE job_id = $1 AND upload = $2
                     RETURNING job_id
                 )
                 INSERT INTO cronvec.staged (job_id, piece, first_line, lines, body)
                 SELECT job_id, $3, $4, $5, $6 FROM mine",
                &[
                    (&upload.job_id, Type::INT8),
                    (&upload.number, Type::INT4),
                    (&(upload.first() + nth), Type::INT4),
                    (&lines.first(), Type::INT4),
                    (&lines, Type::INT4_ARRAY),
                    (&join(records), Type::BYTEA),
                ],
            )
            .await?;
        Ok(staged == 1)
    }

    /// Gives a whole body its number, if the job is open and has none of this number; else the upload goes. The texts
    /// stay where they are.
    pub(super) async fn publish(&self, upload: Upload, whole: &Body) -> Result<Published, StoreError> {
        let row = self
            .query_one(
                "WITH open AS MATERIALIZED (
                     -- Who closes the job waits for us, or we for them.
                     SELECT job_id FROM cronvec.open_jobs WHERE job_id = $1 FOR SHARE
                 ), mine AS (
                     DELETE FROM cronvec.uploads WHERE job_id = $1 AND upload = $2 RETURNING job_id
                 ), made AS (
                     INSERT INTO cronvec.ingest_bodies (job_id, body, hash, lines, records)
                     SELECT open.job_id, $3, $4, $5, $6 FROM open JOIN mine ON mine.job_id = open.job_id
                     ON CONFLICT DO NOTHING RETURNING body
                 ), published AS (
                     UPDATE cronvec.staged SET piece = piece - $7 + ($3 - 1) * $9
                     WHERE job_id = $1 AND piece BETWEEN $7 AND $8 AND EXISTS (SELECT FROM made)
                 ), dropped AS (
                     DELETE FROM cronvec.staged
                     WHERE job_id = $1 AND piece BETWEEN $7 AND $8 AND NOT EXISTS (SELECT FROM made)
                 )
                 SELECT EXISTS (SELECT FROM open), EXISTS (SELECT FROM mine), EXISTS (SELECT FROM made)",
                &[
                    (&upload.job_id, Type::INT8),
                    (&upload.number, Type::INT4),
                    (&upload.body, Type::INT4),
                    (&whole.hash, Type::BYTEA),
                    (&whole.lines, Type::INT4),
                    (&whole.records, Type::INT4),
                    (&upload.first(), Type::INT4),
                    (&upload.last(), Type::INT4),
                    (&PIECES, Type::INT4),
                ],
            )
            .await?;
        match (row.get(0), row.get(1), row.get(2)) {
            (true, true, true) => Ok(Published::New),
            (true, true, false) => self.compare(upload, whole).await,
            _ => Ok(Published::Closed),
        }
    }

    /// In a statement of its own: the one before didn't see a body that was published beside it.
    async fn compare(&self, upload: Upload, whole: &Body) -> Result<Published, StoreError> {
        let row = self
            .query_opt(
                "SELECT hash = $3 FROM cronvec.ingest_bodies WHERE job_id = $1 AND body = $2",
                &[
                    (&upload.job_id, Type::INT8),
                    (&upload.body, Type::INT4),
                    (&whole.hash, Type::BYTEA),
                ],
            )
            .await?;
        Ok(match row.map(|row| row.get(0)) {
            Some(true) => Published::Same,
            Some(false) => Published::Another,
            None => Published::Closed,
        })
    }

    pub(super) async fn drop_upload(&self, upload: Upload) -> Result<(), StoreError> {
        self.execute(
            "WITH mine AS (DELETE FROM cronvec.uploads WHERE job_id = $1 AND upload = $2)
             DELETE FROM cronvec.staged WHERE job_id = $1 AND piece BETWEEN $3 AND $4",
            &[
                (&upload.job_id, Type::INT8),
                (&upload.number, Type::INT4),
                (&upload.first(), Type::INT4),
                (&upload.last(), Type::INT4),
            ],
        )
        .await?;
        Ok(())
    }

    /// Uploads whose sender or whose process broke off, with their pieces. Returns how many.
    pub(super) async fn drop_abandoned_uploads(&self, most: i64) -> Result<u64, StoreError> {
        self.execute(
            "WITH old AS MATERIALIZED (
                 -- Who stages a piece holds the row, and makes it young.
                 SELECT job_id, upload FROM cronvec.uploads WHERE touched_at < now() - interval '1 hour'
                 ORDER BY touched_at LIMIT $1 FOR UPDATE SKIP LOCKED
             ), pieces AS (
                 DELETE FROM cronvec.staged s USING old
                 WHERE s.job_id = old.job_id AND s.piece BETWEEN -old.upload * $2 AND -old.upload * $2 + $2 - 1
             )
             DELETE FROM cronvec.uploads u USING old WHERE u.job_id = old.job_id AND u.upload = old.upload",
            &[(&most, Type::INT8), (&PIECES, Type::INT4)],
        )
        .await
    }
}

/// All that is on its way to a job that is being closed.
pub(super) async fn drop_all(transaction: &Transaction<'_>, job_id: i64) -> Result<(), StoreError> {
    let id: &[super::Param<'_>] = &[(&job_id, Type::INT8)];
    // First these, so that nobody stages another piece.
    for statement in [
        "DELETE FROM cronvec.uploads WHERE job_id = $1",
        "DELETE FROM cronvec.staged WHERE job_id = $1 AND piece < 0",
    ] {
        transaction.execute_typed(statement, id).await?;
    }
    Ok(())
}
