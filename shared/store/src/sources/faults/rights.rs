//! Owns what an attached table's owner and the worker must be allowed, and aren't. Refuses to grant it.

use tokio_postgres::types::Type;

use super::{Fault, Now};
use crate::sources::Source;
use crate::{Store, StoreError};

impl Store {
    /// The triggers run as the table's owner.
    pub(super) async fn faults_of_owner(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let row = self
            .query_one(
                "SELECT has_schema_privilege(c.relowner, 'cronvec', 'USAGE') AND NOT EXISTS (
                     SELECT FROM pg_proc p WHERE p.pronamespace = 'cronvec'::regnamespace
                         AND p.proname IN (format('source_%s_take', $2), format('source_%s_truncated', $2))
                         AND NOT has_function_privilege(c.relowner, p.oid, 'EXECUTE')),
                     c.relrowsecurity AND c.relforcerowsecurity AND NOT (r.rolsuper OR r.rolbypassrls)
                 FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = $1",
                &[(&now.oid, Type::OID), (&source.id, Type::INT4)],
            )
            .await?;
        let (id, Now { name, owner, .. }) = (source.id, now);
        let mut faults = Vec::new();
        if !row.get::<_, bool>(0) {
            faults.push(Fault::fail(
                format!(
                    "{owner}, as whom the triggers of {name} run, may not note its changes: comparisons alone find them"
                ),
                format!(
                    "GRANT USAGE ON SCHEMA cronvec TO {owner}; \
                     GRANT EXECUTE ON FUNCTION cronvec.source_{id}_take, cronvec.source_{id}_truncated TO {owner}"
                ),
            ));
        }
        if row.get(1) {
            faults.push(Fault::fail(
                format!("row-level security is forced on {owner} and may hide rows of {name}: nothing is compared"),
                format!("ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY, or ALTER ROLE {owner} BYPASSRLS"),
            ));
        }
        faults.extend(self.fault_of_owners_reading(source, now).await?);
        Ok(faults)
    }

    /// The functions that read the table, and write its vectors, run as its owner, too.
    async fn fault_of_owners_reading(&self, source: &Source, now: &Now) -> Result<Option<Fault>, StoreError> {
        let row = self
            .query_one(
                "SELECT concat_ws('; ',
                     CASE WHEN NOT has_schema_privilege(c.relowner, n.oid, 'USAGE')
                         THEN format('GRANT USAGE ON SCHEMA %I TO %s', n.nspname, o.owner) END,
                     CASE WHEN NOT has_table_privilege(c.relowner, c.oid, 'SELECT')
                         THEN format('GRANT SELECT ON %I.%I TO %s', n.nspname, c.relname, o.owner) END,
                     (SELECT format('GRANT UPDATE (%I) ON %I.%I TO %s', a.attname, n.nspname, c.relname, o.owner)
                      FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $2 AND NOT a.attisdropped
                          AND NOT has_column_privilege(c.relowner, c.oid, a.attnum, 'UPDATE')),
                     (SELECT format('GRANT EXECUTE ON FUNCTION %s TO %s', string_agg('cronvec.' || p.proname, ', '), o.owner)
                      FROM pg_proc p
                      WHERE p.pronamespace = 'cronvec'::regnamespace AND p.proname IN ('assert_definer', 'key_parts')
                          AND NOT has_function_privilege(c.relowner, p.oid, 'EXECUTE') HAVING count(*) > 0))
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 CROSS JOIN LATERAL (SELECT quote_ident(pg_get_userbyid(c.relowner))) AS o (owner)
                 WHERE c.oid = $1",
                &[(&now.oid, Type::OID), (&source.embedding_column, Type::TEXT)],
            )
            .await?;
        let missing: &str = row.get(0);
        let Now { name, owner, .. } = now;
        Ok((!missing.is_empty()).then(|| {
            Fault::fail(
                format!("{owner}, with whose rights {name} is read, may not do all that it takes: nothing is compared"),
                missing,
            )
        }))
    }

    /// What this role, as the worker's, may not do.
    pub(super) async fn faults_of_worker(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let row = self
            .query_one(
                "SELECT string_agg(format('cronvec.%s', p.proname), ', ' ORDER BY p.proname) FROM pg_proc p
                 WHERE p.pronamespace = 'cronvec'::regnamespace AND NOT has_function_privilege(p.oid, 'EXECUTE')
                     AND p.proname = ANY (SELECT format('source_%s_%s', $1, k.kind)
                         FROM unnest(ARRAY['rows', 'page', 'named', 'there', 'count', 'lock', 'set']) AS k (kind))",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        let me = &now.me;
        Ok(row
            .get::<_, Option<&str>>(0)
            .map(|functions| {
                Fault::fail(
                    format!("{me} may not execute {functions}: nothing is compared or written"),
                    format!("GRANT EXECUTE ON FUNCTION {functions} TO {me}"),
                )
            })
            .into_iter()
            .collect())
    }
}
