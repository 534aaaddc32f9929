//! Owns how a migration's file is cut into steps, each of which is a transaction of its own or needs none. Refuses to run
//! them.

/// How a step is run. The first step of a file is a transaction; a line `-- step: transaction`, `-- step: slices` or
/// `-- step: concurrently` begins another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All its statements in one transaction. It locks no more than one table that others use: with two, it and a writer
    /// could wait for each other.
    Transaction,
    /// One statement, again and again in transactions of their own, until it changes no row.
    Slices,
    /// One `CREATE INDEX CONCURRENTLY cronvec's own name ON …`, outside a transaction.
    Concurrently,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step<'a> {
    pub kind: Kind,
    pub sql: &'a str,
}

const MARK: &str = "\n-- step: ";

/// The steps of a migration's text. A mark that isn't known is part of the step before it: a test reads every file.
pub(super) fn steps(sql: &str) -> Vec<Step<'_>> {
    let mut parts = sql.split(MARK);
    let first = parts.next().map(|sql| Step {
        kind: Kind::Transaction,
        sql,
    });
    let others = parts.map(|part| {
        let (kind, sql) = part.split_once('\n').unwrap_or((part, ""));
        let kind = match kind.trim() {
            "slices" => Kind::Slices,
            "concurrently" => Kind::Concurrently,
            _ => Kind::Transaction,
        };
        Step { kind, sql }
    });
    first.into_iter().chain(others).collect()
}

/// The name of the index that such a step makes.
pub(super) fn index_name(sql: &str) -> Option<&str> {
    let begun = sql.split("CREATE INDEX CONCURRENTLY ").nth(1)?;
    begun.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_at_its_marks() {
        let file = "-- About.\nSELECT 1;\n-- step: slices\nUPDATE a;\n-- step: concurrently\n-- Why.\nCREATE INDEX CONCURRENTLY i ON t (c);\n";
        let cut = steps(file);
        let kinds: Vec<Kind> = cut.iter().map(|step| step.kind).collect();
        assert_eq!(kinds, [Kind::Transaction, Kind::Slices, Kind::Concurrently]);
        assert_eq!(cut[1].sql, "UPDATE a;");
        assert_eq!(index_name(cut[2].sql), Some("i"));
        assert_eq!(steps("SELECT 1").len(), 1);
    }
}
