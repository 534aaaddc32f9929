//! Owns the search for what is wrong with an attached table since it was attached, each with its mend. Refuses to mend it.

use tokio_postgres::types::Type;

use super::super::{Store, StoreError};
use super::{Source, compile};

/// Something that isn't as `attach` left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Changes or vectors are lost until it is mended; else they are only found later.
    pub fails: bool,
    pub found: String,
    pub mend: String,
}

impl Fault {
    fn fail(found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            fails: true,
            ..Self::warn(found, mend)
        }
    }

    fn warn(found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            fails: false,
            found: found.into(),
            mend: mend.into(),
        }
    }
}

/// The table as it is now; names are quoted.
struct Now {
    oid: u32,
    name: String,
    owner: String,
    me: String,
    width: i32,
    /// Of the schema `cronvec`.
    owner_of_schema: String,
}

impl Store {
    /// What this role finds wrong with the table: rights are those of whoever asks.
    pub async fn source_faults(&self, source: &Source) -> Result<Vec<Fault>, StoreError> {
        let Some(now) = self.now(source).await? else {
            let mend = match self.is_there(&source.table).await? {
                // Another took its place.
                true => source.attach_again(&source.table),
                false => format!("cronvec detach {}", source.project),
            };
            return Ok(vec![Fault::fail(format!("{} is gone", source.table), mend)]);
        };
        let mut faults = self.faults_of_columns(source, &now).await?;
        faults.extend(self.faults_of_triggers(source, &now).await?);
        faults.extend(self.faults_of_functions(source, &now).await?);
        faults.extend(self.faults_of_owner(source, &now).await?);
        faults.extend(self.faults_of_worker(source, &now).await?);
        if let Some(strangers @ 1..) = self.strangers(source).await? {
            faults.push(Fault::warn(
                format!(
                    "{strangers} records of project {} don't come from {}: searches find them, and comparisons leave them",
                    source.project, now.name
                ),
                format!(
                    "to delete those that have no row: cronvec reconcile {} --take-over; to keep them, write them to \
                     another project first",
                    source.project
                ),
            ));
        }
        if let Some(trouble) = &source.trouble {
            faults.push(Fault::warn(
                format!("the last comparison didn't get through: {trouble}"),
                format!("mend what it says, then: cronvec reconcile {}", source.project),
            ));
        }
        Ok(faults)
    }

    /// Whether there is a table of this name, quoted as SQL needs it.
    async fn is_there(&self, table: &str) -> Result<bool, StoreError> {
        let row = self
            .query_one("SELECT to_regclass($1) IS NOT NULL", &[(&table, Type::TEXT)])
            .await?;
        Ok(row.get(0))
    }

    async fn now(&self, source: &Source) -> Result<Option<Now>, StoreError> {
        let row = self
            .query_opt(
                "SELECT c.oid, format('%I.%I', n.nspname, c.relname), quote_ident(pg_get_userbyid(c.relowner)),
                     quote_ident(current_user), sp.dimensions, quote_ident(pg_get_userbyid(ours.nspowner))
                 FROM cronvec.sources s JOIN cronvec.projects p ON p.id = s.project_id
                 JOIN cronvec.spaces sp ON sp.id = p.live_space
                 JOIN pg_class c ON c.oid = s.relation JOIN pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_namespace ours ON ours.nspname = 'cronvec'
                 WHERE s.id = $1",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        Ok(row.map(|row| Now {
            oid: row.get(0),
            name: row.get(1),
            owner: row.get(2),
            me: row.get(3),
            width: row.get(4),
            owner_of_schema: row.get(5),
        }))
    }

    async fn faults_of_columns(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let columns = self.columns(now.oid).await?;
        let find = |name: &str| columns.iter().find(|column| column.name == name);
        let mut faults = Vec::new();
        for key in &source.key {
            let problem = match find(key) {
                None => "isn't there any more",
                Some(column) if !column.not_null => "may be null now",
                Some(_) => continue,
            };
            faults.push(Fault::fail(
                format!("{key}, by which rows of {} are told apart, {problem}", now.name),
                format!(
                    "cronvec detach {}, and attach the table again by another key: what is embedded stays so",
                    source.project
                ),
            ));
        }
        let Some(name) = &source.embedding_column else {
            return Ok(faults);
        };
        let (table, width) = (&now.name, now.width);
        match find(name) {
            None => faults.push(Fault::fail(
                format!("{table} has no column {name} any more: vectors can't be written to it"),
                format!(
                    "ALTER TABLE {table} ADD COLUMN \"{}\" vector({width})",
                    name.replace('"', "\"\"")
                ),
            )),
            Some(column) => {
                let type_of = column.full_type.rsplit('.').next().unwrap_or_default();
                if type_of != "vector" && type_of != format!("vector({width})") {
                    faults.push(Fault::fail(
                        format!(
                            "{} of {table} is {type_of}, and project '{}' embeds with {width} dimensions",
                            column.quoted, source.project
                        ),
                        format!(
                            "ALTER TABLE {table} ALTER COLUMN {} TYPE vector({width}) USING NULL",
                            column.quoted
                        ),
                    ));
                }
            }
        }
        Ok(faults)
    }

    async fn faults_of_triggers(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let rows = self
            .query(
                "SELECT w.what, format('%I.%I', n.nspname, c.relname), c.oid = $2, g.tgname::text
                 FROM (SELECT $2 UNION SELECT relid FROM pg_partition_tree($2)) AS t (oid)
                 JOIN pg_class c ON c.oid = t.oid AND c.relkind IN ('r', 'p')
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 CROSS JOIN unnest(ARRAY['insert', 'update', 'delete', 'truncate', 'forget']) AS w (what)
                 LEFT JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgname =
                     CASE w.what WHEN 'forget' THEN format('zz_cronvec_%s_forget', $1) ELSE format('cronvec_%s_%s', $1, w.what) END
                 WHERE (w.what <> 'forget' OR ($3 AND c.oid = $2)) AND (g.oid IS NULL OR g.tgenabled NOT IN ('O', 'A'))
                 ORDER BY c.oid <> $2, 2, 1 LIMIT 10",
                &[
                    (&source.id, Type::INT4),
                    (&now.oid, Type::OID),
                    (&(source.on_change == "null"), Type::BOOL),
                ],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| {
                let (what, table, is_top): (&str, &str, bool) = (row.get(0), row.get(1), row.get(2));
                match row.get::<_, Option<&str>>(3) {
                    Some(name) => Fault::fail(
                        format!("trigger {name} of {table} is disabled: changes are found by comparisons alone"),
                        format!("ALTER TABLE {table} ENABLE TRIGGER {name}"),
                    ),
                    None if what == "forget" => Fault::fail(
                        format!("{table} has lost the trigger that empties its column"),
                        anew(source, now),
                    ),
                    None if is_top => Fault::fail(
                        format!("{table} has lost its trigger for {what}: changes are found by comparisons alone"),
                        one_line(&compile::trigger(source.id, table, what)),
                    ),
                    None => Fault::warn(
                        format!("partition {table} has no trigger for {what} yet"),
                        format!("the next comparison makes it: cronvec reconcile {}", source.project),
                    ),
                }
            })
            .collect())
    }

    /// Those that read or write the table belong to its owner, those that write our tables to the schema's; each runs with
    /// its owner's rights, and is executable by nobody but those that it is for.
    async fn faults_of_functions(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let expressions = ["text", "metadata", "where"];
        let mut expected = vec!["text", "take", "truncated", "event", "rows", "named", "there", "count"];
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
                    anew(source, now),
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

    /// The statement that gives a source's functions their rights, with the membership that it needs.
    async fn secured(&self, source: &Source, now: &Now) -> Result<String, StoreError> {
        let row = self
            .query_one(
                "SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = $1",
                &[(&now.oid, Type::OID)],
            )
            .await?;
        let secure = format!("SELECT cronvec.secure_source({})", source.id);
        Ok(match row.get(0) {
            true => secure,
            false => format!(
                "as a superuser: GRANT {0} TO {1}; as {1}: {secure}",
                now.owner, now.owner_of_schema
            ),
        })
    }

    /// The triggers run as the table's owner.
    async fn faults_of_owner(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
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
        Ok(faults)
    }

    /// What this role, as the worker's, may not do.
    async fn faults_of_worker(&self, source: &Source, now: &Now) -> Result<Vec<Fault>, StoreError> {
        let row = self
            .query_one(
                "SELECT string_agg(format('cronvec.%s', p.proname), ', ' ORDER BY p.proname) FROM pg_proc p
                 WHERE p.pronamespace = 'cronvec'::regnamespace AND NOT has_function_privilege(p.oid, 'EXECUTE')
                     AND p.proname = ANY (SELECT format('source_%s_%s', $1, k.kind)
                         FROM unnest(ARRAY['rows', 'named', 'there', 'count', 'lock', 'set']) AS k (kind))",
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

/// What making all of it anew mends; records and vectors stay.
fn anew(source: &Source, now: &Now) -> String {
    source.attach_again(&now.name)
}

fn one_line(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}
