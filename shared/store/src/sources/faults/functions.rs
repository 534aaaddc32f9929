//! Owns what has become of an attached table's functions: whose they are, with which rights they run. Refuses to run them.

use tokio_postgres::types::Type;

use super::{Fault, Now};
use crate::sources::Source;
use crate::{Store, StoreError};

impl Store {
    /// Those that read or write the table belong to its owner, those that write our tables to the schema's; each runs with
    /// its owner's rights, and is executable by nobody but those that it is for.
    pub(super) async fn faults_of_functions(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let expressions = ["text", "metadata", "where"];
        let page = if source.generation == 0 { "rows" } else { "page" };
        let mut expected = vec!["text", "take", "truncated", "event", page, "named", "there", "count"];
        expected.extend(source.metadata.is_some().then_some("metadata"));
        expected.extend(source.filter.is_some().then_some("where"));
        if source.embedding_column.is_some() {
            expected.extend(["lock", "set"]);
            expected.extend((source.on_change == "null").then_some("forget"));
        }
        let rows = self
            .query(
                "SELECT format('cronvec.source_%s_%s', $1, e.name), p.oid IS NOT NULL, quote_ident(pg_get_userbyid(p.proowner)),
                     e.name IN ('take', 'truncated'), e.name = ANY ($3) OR (
                         p.prosecdef
                         AND NOT EXISTS (
                             SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a WHERE a.grantee = 0)
                         AND (e.name IN ('take', 'truncated', 'event', 'forget')
                             OR strpos(p.prosrc, 'cronvec.assert_definer(') > 0))
                 FROM unnest($2::text[]) AS e (name)
                 LEFT JOIN pg_proc p ON p.pronamespace = 'cronvec'::regnamespace
                     AND p.proname = format('source_%s_%s', $1, e.name)
                 ORDER BY e.name LIMIT 100",
                &[
                    (&source.id, Type::INT4),
                    (&expected, Type::TEXT_ARRAY),
                    (&expressions.as_slice(), Type::TEXT_ARRAY),
                ],
            )
            .await?;
        let mut faults = Vec::new();
        let mut insecure = Vec::new();
        for row in &rows {
            let (function, is_there): (&str, bool) = (row.get(0), row.get(1));
            if !is_there {
                faults.push(Fault::fail(
                    format!("function {function} is missing"),
                    now.again(source),
                ));
                continue;
            }
            let (owner, is_ours, is_secure): (&str, bool, bool) = (row.get(2), row.get(3), row.get(4));
            let rightful = if is_ours { &now.owner_of_schema } else { &now.owner };
            if owner != rightful {
                let found = format!("{function} belongs to {owner}, not to {rightful}");
                let mend = format!("as a superuser: ALTER FUNCTION {function} OWNER TO {rightful}");
                faults.push(match is_ours {
                    true => Fault::fail(found, mend),
                    false => Fault::warn(found, mend),
                });
            }
            if !is_secure {
                insecure.push(function);
            }
        }
        if !insecure.is_empty() {
            faults.push(Fault::fail(
                format!(
                    "{} don't run with their owner's rights alone, or anybody may call them",
                    insecure.join(", ")
                ),
                self.secured(source, now).await?,
            ));
        }
        Ok(faults)
    }

    /// The statement that gives a source's functions their rights.
    async fn secured(&self, source: &Source, now: &Now) -> Result<String, StoreError> {
        let row = self
            .query_one(
                "SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = $1",
                &[(&now.oid, Type::OID)],
            )
            .await?;
        let who = if row.get(0) { "" } else { "as a superuser: " };
        Ok(format!("{who}SELECT cronvec.secure_source({})", source.id))
    }
}
