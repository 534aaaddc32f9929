//! What `health` and `doctor` look at, as the command line tells it.

use cronvec_config::AppEnv;
use cronvec_nouns::token::Reach;

pub(crate) use cronvec_checks::{Check, MINUTES_WAITED, Verdict, all_well};

use crate::app::App;
use crate::output::{Align, Table};

pub(crate) fn table(checks: &[Check]) -> Table {
    let columns = [("", Align::Left), ("check", Align::Left), ("found", Align::Left)];
    let mut table = Table::new(&columns, "nothing was checked");
    for check in checks {
        let mark = match check.status {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        table.row([mark.to_owned(), check.check.clone(), check.found.clone()]);
        if let Some(mend) = &check.mend {
            table.row([String::new(), String::new(), format!("→ {mend}")]);
        }
    }
    table
}

/// Whether the database answers; the check and whether it is any use to look further.
pub(crate) async fn database(app: &App) -> (Check, bool) {
    cronvec_checks::database(app.store()).await
}

/// Whether the schema is this program's, by its version.
pub(crate) async fn schema(app: &App) -> (Check, bool) {
    cronvec_checks::schema(app.store()).await
}

/// The rest of what `health` looks at, on a database whose schema is right.
pub(crate) async fn queue(app: &App) -> anyhow::Result<Vec<Check>> {
    Ok(cronvec_checks::queue(app.store(), &Reach::ALL).await?)
}

/// What the environment lacks.
pub(crate) fn secret(app: &App) -> Check {
    let settings = app.settings();
    let mend = "set CRON_SECRET, or CRON_SECRET_ARN, to a long random value, and give the schedules the same";
    match (&settings.cron_secret, settings.app_env) {
        (Some(_), _) => Check::ok("secret", "CRON_SECRET is set"),
        (None, AppEnv::Production) => Check::fail(
            "secret",
            "CRON_SECRET is not set: in production every worker call is answered 500",
            mend,
        ),
        (None, AppEnv::Development) => Check::warn(
            "secret",
            "CRON_SECRET is not set: in production worker calls would be answered 500",
            mend,
        ),
    }
}
