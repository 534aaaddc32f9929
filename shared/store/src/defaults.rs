//! Owns the defaults of this role and this database that our statements have to work around: which, where they are set,
//! and the statement that spares us the trouble. Refuses to run it.

use super::connect::session::HARMFUL;
use super::{Store, StoreError};

/// A default that costs each of our statements a transaction of its own making.
#[derive(Debug, Clone)]
pub struct HarmfulDefault {
    pub name: String,
    pub value: String,
    /// Where it is set, in words.
    pub set_by: String,
    pub fix: String,
}

impl Store {
    /// Of a new session. Asked outside of the transaction that would hide them.
    pub async fn harmful_defaults(&self) -> Result<Vec<HarmfulDefault>, StoreError> {
        let client = self.client().await?;
        let rows = client
            .query_typed(
                &format!(
                    "SELECT g.name, current_setting(g.name), g.source, quote_ident(session_user), quote_ident(current_database())
                     FROM ({HARMFUL}) AS h JOIN pg_settings g ON g.name = h.name ORDER BY g.name LIMIT 20"
                ),
                &[],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| harmful(row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)))
            .collect())
    }
}

/// `source` as `pg_settings` has it; role and database are quoted.
fn harmful(name: &str, value: &str, source: &str, role: &str, database: &str) -> HarmfulDefault {
    let harmless = match name {
        "default_transaction_isolation" => "'read committed'",
        "default_transaction_read_only" => "off",
        _ => "0",
    };
    let here = format!("ALTER ROLE {role} IN DATABASE {database}");
    let (set_by, fix) = match source {
        "user" => (format!("role {role}"), format!("ALTER ROLE {role} RESET {name}")),
        "database user" => (
            format!("role {role} in database {database}"),
            format!("{here} RESET {name}"),
        ),
        "client" => (
            "the address's options".to_owned(),
            format!("take {name} out of `options` in DATABASE_URL"),
        ),
        "database" => (
            format!("database {database}"),
            format!("{here} SET {name} = {harmless}"),
        ),
        _ => ("the server".to_owned(), format!("{here} SET {name} = {harmless}")),
    };
    HarmfulDefault {
        name: name.to_owned(),
        value: value.to_owned(),
        set_by,
        fix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_depends_on_where_a_default_is_set() {
        for (name, source, fix) in [
            ("statement_timeout", "user", "ALTER ROLE app RESET statement_timeout"),
            (
                "lock_timeout",
                "database user",
                "ALTER ROLE app IN DATABASE shop RESET lock_timeout",
            ),
            (
                "default_transaction_isolation",
                "database",
                "ALTER ROLE app IN DATABASE shop SET default_transaction_isolation = 'read committed'",
            ),
            (
                "default_transaction_read_only",
                "configuration file",
                "ALTER ROLE app IN DATABASE shop SET default_transaction_read_only = off",
            ),
            (
                "statement_timeout",
                "client",
                "take statement_timeout out of `options` in DATABASE_URL",
            ),
        ] {
            assert_eq!(harmful(name, "5s", source, "app", "shop").fix, fix);
        }
    }
}
