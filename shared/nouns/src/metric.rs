//! Owns every number that cronvec tells about its work: what it means, its unit, and its name at each place where it is shown.
//! Refuses to count.

/// What a number counts in. Prometheus alone has durations in seconds, as its names say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Count,
    Seconds,
    Milliseconds,
}

impl Unit {
    /// As CloudWatch calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Seconds => "Seconds",
            Self::Milliseconds => "Milliseconds",
        }
    }
}

/// How Prometheus treats a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A number. Its name is empty at a place that doesn't show it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub unit: Unit,
    /// The help line of `/metrics`.
    pub help: &'static str,
    /// The field of a worker's report.
    pub report: &'static str,
    /// The metric in CloudWatch, which costs money by the month. It has the report's name where a report has it.
    pub cloudwatch: &'static str,
    /// `metric` in `cronvec.performance_metrics`; of a histogram what precedes a bucket's bound.
    pub table: &'static str,
    /// The family in `/metrics`.
    pub prometheus: &'static str,
    pub kind: Kind,
}

const fn metric(unit: Unit, help: &'static str) -> Metric {
    Metric {
        unit,
        help,
        report: "",
        cloudwatch: "",
        table: "",
        prometheus: "",
        kind: Kind::Gauge,
    }
}

const fn count(help: &'static str) -> Metric {
    metric(Unit::Count, help)
}

const fn seconds(help: &'static str) -> Metric {
    metric(Unit::Seconds, help)
}

const fn milliseconds(help: &'static str) -> Metric {
    metric(Unit::Milliseconds, help)
}

impl Metric {
    const fn report(self, report: &'static str) -> Self {
        Self { report, ..self }
    }

    const fn cloudwatch(self, cloudwatch: &'static str) -> Self {
        Self { cloudwatch, ..self }
    }

    const fn table(self, table: &'static str) -> Self {
        Self { table, ..self }
    }

    const fn prometheus(self, prometheus: &'static str, kind: Kind) -> Self {
        Self {
            prometheus,
            kind,
            ..self
        }
    }

    const fn gauge(self, name: &'static str) -> Self {
        self.prometheus(name, Kind::Gauge)
    }

    const fn counter(self, name: &'static str) -> Self {
        self.prometheus(name, Kind::Counter)
    }

    const fn histogram(self, name: &'static str) -> Self {
        self.prometheus(name, Kind::Histogram)
    }
}

/// All of them, in the order in which CloudWatch is told them.
pub const ALL: [Metric; 38] = [
    SUCCEEDED,
    UNAUTHORISED,
    AUTHORISED_BY_PREVIOUS,
    RECORDS,
    FAILED,
    QUARANTINED,
    REJECTED,
    DELETED,
    SLICES,
    LOST_LEASES,
    RESCUED,
    REQUESTS,
    RATE_LIMITED,
    TOKENS,
    REQUEST_DURATION,
    PENDING_RECORDS,
    OLDEST_PENDING,
    QUARANTINED_RECORDS,
    OPEN_CIRCUITS,
    PROCESSED,
    CHUNKS,
    REUSED,
    PURGED,
    PASSED_OVER,
    SKIPPED,
    DURATION,
    PASS_DURATION,
    EMBEDDING_DURATION,
    RECORD_DELAY,
    RECORD_ATTEMPTS,
    RECORD_ATTEMPTS_RATIO,
    QUARANTINED_BY_REASON,
    JOBS,
    ENDPOINTS_PAUSED,
    WORKER_LAST_SEEN,
    PASSES,
    PASSES_FAILED,
    DATABASE_UP,
];

// Of a call.

pub const SUCCEEDED: Metric = count("1 where a call succeeded, else 0.").cloudwatch("succeeded");

pub const UNAUTHORISED: Metric = count("1 where a call had no right to be made, else 0.").cloudwatch("unauthorised");

pub const AUTHORISED_BY_PREVIOUS: Metric =
    count("1 where a call came with the previous secret, else 0.").cloudwatch("authorisedByPrevious");

pub const DURATION: Metric = milliseconds("How long a call took.").report("duration");

// Of a pass of any worker.

pub const PASSES: Metric = count("Passes of this process.").counter("cronvec_passes_total");

pub const PASSES_FAILED: Metric = count("Of these, those that failed.").counter("cronvec_passes_failed_total");

pub const PROCESSED: Metric = count("Jobs that a pass worked on, or deleted.").report("processed");

pub const RECORDS: Metric = count("Records that this process stored, embedded, or rows that it deleted.")
    .report("records")
    .cloudwatch("records")
    .table("records_embedded")
    .counter("cronvec_records_total");

pub const LOST_LEASES: Metric = count("Jobs whose lease was lost while they were worked on.")
    .report("lostLeases")
    .cloudwatch("lostLeases")
    .table("lost_leases");

// Of ingestion and cleanup.

pub const REJECTED: Metric = count("Records that this process was handed in and could not store.")
    .report("rejected")
    .cloudwatch("rejected")
    .counter("cronvec_rejected_records_total");

pub const SKIPPED: Metric = count("Records that were there already, or had something newer.").report("skipped");

pub const DELETED: Metric = count("Rows that had expired and were deleted.")
    .report("deletedCount")
    .cloudwatch("deletedCount");

// Of vectorization: records and chunks.

pub const FAILED: Metric = count("Records charged with an attempt.")
    .report("failed")
    .cloudwatch("failed")
    .table("records_failed");

pub const QUARANTINED: Metric = count("Records that this process quarantined, by reason.")
    .report("quarantined")
    .cloudwatch("quarantined")
    .table("records_quarantined")
    .counter("cronvec_records_quarantined_total");

pub const RECORD_ATTEMPTS: Metric =
    count("Attempts at records by how they ended, of this process.").counter("cronvec_record_attempts_total");

pub const RECORD_ATTEMPTS_RATIO: Metric =
    count("Of the attempts at records in the last hour, those that ended so, anywhere. None: there was no attempt.")
        .gauge("cronvec_record_attempts_ratio");

pub const RECORD_DELAY: Metric =
    milliseconds("From the acceptance of a record's text until it was embedded, of this process.")
        .table("record_delay_ms_le_")
        .histogram("cronvec_record_embedding_delay_seconds");

pub const CHUNKS: Metric = count("Chunks whose vectors were stored.").report("chunks");

pub const REUSED: Metric = count("Of these, those whose text the space held already.").report("reused");

pub const PURGED: Metric = count("Deleted records whose vectors were taken away.").report("purged");

pub const PASSED_OVER: Metric =
    count("Answers that weren't stored, because the text had changed or its row was somebody's.").report("passedOver");

// Of vectorization: slices and jobs.

pub const SLICES: Metric = count("Slices that were read.").report("slices").cloudwatch("slices");

pub const RESCUED: Metric = count("Jobs that had lost a worker before.")
    .report("rescued")
    .cloudwatch("rescued");

pub const PASS_DURATION: Metric = milliseconds("How long a pass took that had a job.").table("vectorization_ms");

pub const EMBEDDING_DURATION: Metric =
    milliseconds("How long a project's jobs were worked on, those of several lanes added up.").table("embedding_ms");

// Of vectorization: requests.

pub const REQUESTS: Metric = count("Requests to providers, of this process.")
    .report("requests")
    .cloudwatch("requests")
    .table("provider_requests")
    .counter("cronvec_provider_requests_total");

pub const RATE_LIMITED: Metric = count("Of these, those that were answered with 429.")
    .report("rateLimited")
    .cloudwatch("rateLimited")
    .table("provider_rate_limited")
    .counter("cronvec_provider_rate_limited_total");

pub const TOKENS: Metric = count("Tokens as providers count them, of this process.")
    .report("tokens")
    .cloudwatch("tokens")
    .table("provider_tokens")
    .counter("cronvec_provider_tokens_total");

pub const REQUEST_DURATION: Metric = milliseconds("How long requests to providers took, of this process.")
    .report("requestMs")
    .cloudwatch("requestMs")
    .table("provider_request_ms_le_")
    .histogram("cronvec_provider_request_duration_seconds");

// Of the queue, as it is now. The bounds in the help lines are the store's.

pub const JOBS: Metric = count("Jobs by status, counted up to 10000.").gauge("cronvec_jobs");

pub const OLDEST_PENDING: Metric = seconds("Since the oldest job that waits could be claimed.")
    .cloudwatch("oldestPendingSeconds")
    .gauge("cronvec_oldest_pending_seconds");

pub const PENDING_RECORDS: Metric = count("Records that wait to be embedded, counted up to 10000.")
    .cloudwatch("pendingRecords")
    .gauge("cronvec_pending_records");

pub const QUARANTINED_RECORDS: Metric = count("Quarantined records, counted up to 100000.")
    .cloudwatch("quarantinedRecords")
    .gauge("cronvec_quarantined_records");

pub const QUARANTINED_BY_REASON: Metric =
    count("The same by reason, all together counted up to 100000.").gauge("cronvec_quarantined_records_by_reason");

pub const OPEN_CIRCUITS: Metric =
    count("Providers' endpoints that are shut off until somebody mends them.").cloudwatch("openCircuits");

pub const ENDPOINTS_PAUSED: Metric =
    count("Providers' endpoints that nobody asks now.").gauge("cronvec_endpoints_paused");

pub const WORKER_LAST_SEEN: Metric =
    seconds("Since a worker was last seen, anywhere.").gauge("cronvec_worker_last_seen_seconds");

pub const DATABASE_UP: Metric = count("Whether the database answers.").gauge("cronvec_database_up");
