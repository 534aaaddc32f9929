//! Owns how long finished things are kept. Refuses to delete any.

use std::time::Duration;

use super::reader::Reader;

const HOUR: u64 = 3_600;

/// What `cleanup` deletes, and how often.
#[derive(Clone, Debug)]
pub struct Retention {
    /// `EMBEDDING_CLEANUP_RETENTION_DAYS`
    pub job_days: u32,
    /// `EMBEDDING_CLEANUP_INTERVAL`
    pub interval: Duration,
    /// `AUDIT_RETENTION_DAYS`
    pub audit_days: u32,
    /// `METRICS_RETENTION_DAYS`
    pub metrics_days: u32,
}

impl Retention {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let century = 36_500;
        Self {
            job_days: reader.number("EMBEDDING_CLEANUP_RETENTION_DAYS", 7, 1..=century),
            interval: Duration::from_secs(reader.number("EMBEDDING_CLEANUP_INTERVAL", 24, 1..=8_760) * HOUR),
            audit_days: reader.number("AUDIT_RETENTION_DAYS", 90, 1..=century),
            metrics_days: reader.number("METRICS_RETENTION_DAYS", 30, 1..=century),
        }
    }

    pub(super) fn describe(&self, rows: &mut Vec<(&'static str, String)>) {
        rows.extend([
            ("EMBEDDING_CLEANUP_RETENTION_DAYS", self.job_days.to_string()),
            (
                "EMBEDDING_CLEANUP_INTERVAL",
                (self.interval.as_secs() / HOUR).to_string(),
            ),
            ("AUDIT_RETENTION_DAYS", self.audit_days.to_string()),
            ("METRICS_RETENTION_DAYS", self.metrics_days.to_string()),
        ]);
    }
}
