//! Owns the try of an expression on a few rows before its table is attached: what works for the person who attaches may
//! find nothing under the settings of the triggers. Refuses to mind rows that are odd.

use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Transaction};

use super::super::StoreError;
use super::attach::{explain_lock, invalid};
use super::compile::{Plan, SETTINGS};

/// Functions that the expressions of source $1 call, and that say nothing of a search path of their own: the statements
/// that give them this session's.
pub(super) const OPEN_FUNCTIONS: &str =
    "SELECT string_agg(DISTINCT format('ALTER FUNCTION %I.%I(%s) SET search_path = %s', n.nspname, used.proname,
         pg_get_function_identity_arguments(used.oid), path.schemas), '; ')
     FROM pg_proc p
     JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass
     JOIN pg_proc used ON used.oid = d.refobjid JOIN pg_namespace n ON n.oid = used.pronamespace
     JOIN pg_language l ON l.oid = used.prolang AND l.lanname NOT IN ('internal', 'c')
     CROSS JOIN LATERAL (
         SELECT string_agg(quote_ident(s.name), ', ') FROM unnest(current_schemas(false) || ARRAY['pg_temp'::name]) AS s (name)
         WHERE s.name <> 'cronvec'
     ) AS path (schemas)
     WHERE p.pronamespace = 'cronvec'::regnamespace AND n.nspname <> 'cronvec'
         AND p.proname IN (format('source_%s_text', $1), format('source_%s_metadata', $1), format('source_%s_where', $1))
         AND NOT EXISTS (SELECT FROM unnest(used.proconfig) AS c (setting) WHERE starts_with(c.setting, 'search_path='))";

/// Whether something isn't found by its name.
pub(super) fn is_name_unknown(error: &DbError) -> bool {
    [
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
    ]
    .contains(error.code())
}

/// Runs the expressions as the triggers will, over a few rows and one of NULLs. Their functions are there and belong to
/// the table's owner, as this one does before it is called: nobody else's rights are lent to them.
pub(super) async fn attempt(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    let name = signature(plan.id);
    let run = async |statement: &str| transaction.execute_typed(statement, &[]).await;
    run("SAVEPOINT attempt").await?;
    let Err(error) = run(&format!("SELECT {name}")).await else {
        run(&format!("DROP FUNCTION {name}")).await?;
        return Ok(());
    };
    run("ROLLBACK TO SAVEPOINT attempt").await?;
    let rows = transaction
        .query_typed(OPEN_FUNCTIONS, &[(&plan.id, Type::INT4)])
        .await?;
    Err(refused(error, plan, rows.first().and_then(|row| row.get(0))))
}

fn signature(id: i32) -> String {
    format!("cronvec.source_{id}_attempt()")
}

/// The function that tries. An error of one row's value is that row's, not the expression's.
pub(super) fn create(plan: &Plan<'_>) -> String {
    let all = std::iter::once(&plan.text).chain(&plan.metadata).chain(&plan.filter);
    let calls: Vec<String> = all.map(|expression| expression.of(plan.id, "t")).collect();
    format!(
        "CREATE FUNCTION {name} RETURNS void LANGUAGE plpgsql SECURITY DEFINER {SETTINGS} AS $attempt$
DECLARE
    t record;
BEGIN
    FOR t IN (SELECT a.* FROM {table} AS a LIMIT 20) UNION ALL (SELECT (n.none).* FROM (SELECT NULL::{table} AS none) AS n)
    LOOP
        BEGIN
            PERFORM {calls};
        EXCEPTION
            WHEN syntax_error_or_access_rule_violation OR invalid_schema_name THEN
                RAISE;
            WHEN OTHERS THEN
                NULL;
        END;
    END LOOP;
END
$attempt$",
        name = signature(plan.id),
        table = plan.table.name,
        calls = calls.join(", ")
    )
}

fn refused(error: Error, plan: &Plan<'_>, statements: Option<String>) -> StoreError {
    let server = match error.as_db_error() {
        Some(server) if *server.code() != SqlState::LOCK_NOT_AVAILABLE => server,
        _ => return explain_lock(error, &plan.table.name),
    };
    let message = match calls(server) {
        Some(function) => format!("{} (in {function})", server.message()),
        None => server.message().to_owned(),
    };
    invalid(match (is_name_unknown(server), statements) {
        (true, Some(statements)) => format!(
            "{message}: an expression runs with search_path = pg_catalog, whoever writes. Let the function name it with its \
             schema, or run: {statements}"
        ),
        _ => format!(
            "the expressions don't work on rows of {}: {message}. They run with search_path = pg_catalog and the rights of {}",
            plan.table.name, plan.table.owner
        ),
    })
}

/// The function in which it happened, unless it is ours: `PL/pgSQL function public.clean(text) line 1 at RETURN`, or
/// `SQL function "clean" during inlining`.
fn calls(error: &DbError) -> Option<String> {
    let innermost = error.where_()?.lines().next()?;
    let (_, named) = innermost.split_once("function ")?;
    let name = match named.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?.to_owned(),
        None => format!("{})", named.split(") ").next()?),
    };
    (!name.contains("source_")).then_some(name)
}
