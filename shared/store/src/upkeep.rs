//! Owns what a tick sets right before it works: jobs that are held as their projects are, sequences that are ahead of the
//! data. Refuses to take long where all is well.

use super::{Store, StoreError};

impl Store {
    pub(super) async fn keep_up(&self) -> Result<(), StoreError> {
        self.keep_numbers().await?;
        let row = self
            .query_one(
                "SELECT EXISTS (SELECT FROM cronvec.job_queue WHERE held AND status IN ('PENDING', 'PROCESSING'))
                     OR EXISTS (SELECT FROM cronvec.projects WHERE paused)",
                &[],
            )
            .await?;
        if row.get(0) {
            self.align_held().await?;
        }
        Ok(())
    }

    /// What a program checks when it begins: that the schema serves it, and that what it writes isn't numbered behind the
    /// data.
    pub async fn check_ready(&self) -> Result<(), StoreError> {
        self.check_schema().await?;
        self.keep_numbers().await
    }
}
