//! Owns what has become of an attached table's triggers, on itself and its partitions. Refuses to look at what they call.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Fault, Now};
use crate::sources::{Source, compile};
use crate::{Store, StoreError};

impl Store {
    pub(super) async fn faults_of_triggers(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let rows = self
            .query(
                "SELECT w.what, format('%I.%I', n.nspname, c.relname), c.oid = $2, g.tgname::text,
                     g.tgenabled IN ('O', 'A')
                 FROM (SELECT $2 UNION SELECT relid FROM pg_partition_tree($2)) AS t (oid)
                 JOIN pg_class c ON c.oid = t.oid AND c.relkind IN ('r', 'p')
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 CROSS JOIN unnest(ARRAY['insert', 'update', 'delete', 'truncate', 'forget']) AS w (what)
                 LEFT JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgname =
                     CASE w.what WHEN 'forget' THEN format('zz_cronvec_%s_forget', $1) ELSE format('cronvec_%s_%s', $1, w.what) END
                 WHERE (w.what <> 'forget' OR ($3 AND c.oid = $2))
                     AND (g.oid IS NULL OR g.tgenabled NOT IN ('O', 'A') OR g.tgqual IS NOT NULL)
                 ORDER BY c.oid <> $2, 2, 1 LIMIT 10",
                &[
                    (&source.id, Type::INT4),
                    (&now.oid, Type::OID),
                    (&(source.on_change == "null"), Type::BOOL),
                ],
            )
            .await?;
        let mut faults: Vec<Fault> = rows.iter().map(|row| of_trigger(source, now, row)).collect();
        faults.extend(self.faults_of_others(source, now).await?);
        Ok(faults)
    }

    /// Our triggers on tables that have left the attached one: partitions that were detached, the old half of a swap.
    async fn faults_of_others(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let rows = self
            .query(
                "SELECT format('%I.%I', n.nspname, c.relname),
                     string_agg(format('DROP TRIGGER %I ON %I.%I', g.tgname, n.nspname, c.relname), '; ' ORDER BY g.tgname)
                 FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_proc p ON p.oid = g.tgfoid AND p.pronamespace = 'cronvec'::regnamespace
                     AND p.proname IN (format('source_%s_event', $1), format('source_%s_forget', $1))
                 WHERE NOT g.tgisinternal AND g.tgparentid = 0
                     AND c.oid NOT IN (SELECT $2 UNION SELECT relid FROM pg_partition_tree($2))
                 GROUP BY 1 ORDER BY 1 LIMIT 10",
                &[(&source.id, Type::INT4), (&now.oid, Type::OID)],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| {
                let (other, drops): (&str, &str) = (row.get(0), row.get(1));
                Fault::warn(
                    format!(
                        "{other} isn't a part of {} any more, and still has its triggers",
                        now.name
                    ),
                    drops,
                )
            })
            .collect())
    }
}

fn of_trigger(source: &Source, now: &Now, row: &Row) -> Fault {
    let (what, table, is_top): (&str, &str, bool) = (row.get(0), row.get(1), row.get(2));
    match (row.get::<_, Option<&str>>(3), row.get::<_, Option<bool>>(4)) {
        (Some(name), Some(true)) => Fault::warn(
            format!("trigger {name} of {table} names columns: ALTER TABLE can't drop them or change their types"),
            now.again(source),
        ),
        (Some(name), _) => Fault::fail(
            format!("trigger {name} of {table} is disabled: changes are found by comparisons alone"),
            format!("ALTER TABLE {table} ENABLE TRIGGER {name}"),
        ),
        (None, _) if what == "forget" => Fault::fail(
            format!("{table} has lost the trigger that empties its column"),
            now.again(source),
        ),
        (None, _) if is_top => Fault::fail(
            format!("{table} has lost its trigger for {what}: changes are found by comparisons alone"),
            one_line(&compile::trigger(source.id, table, what)),
        ),
        (None, _) => Fault::warn(
            format!("partition {table} has no trigger for {what} yet"),
            format!("the next comparison makes it: cronvec reconcile {}", source.project),
        ),
    }
}

fn one_line(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}
