//! `provider test`

use std::collections::BTreeSet;

use anyhow::Result;
use cronvec_nouns::space::{ProviderKind, SpaceSpec};
use cronvec_pipeline::canary;
use cronvec_provider::Failure;
use serde::Serialize;

use super::ready;
use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use crate::output::{Align, Table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Ask for the canary, a short harmless text; who answers may be asked again at once
    Test(Args),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<ProviderKind>,
}

/// What came of one model's canary.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tested {
    provider: ProviderKind,
    model: String,
    dimensions: u16,
    /// Absent where the settings don't reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
    #[serde(flatten)]
    failure: Option<Told>,
}

#[derive(Debug, Serialize)]
struct Told {
    kind: &'static str,
    message: String,
    mend: &'static str,
}

pub(crate) async fn run(action: Action, context: &Context) -> Result<Ended> {
    let Action::Test(args) = action;
    let app = ready().await?;
    let mut tested = Vec::new();
    for spec in app.ways_to_embed().await? {
        if args.provider.is_none_or(|wanted| wanted == spec.provider) {
            tested.push(test(&app, &spec).await);
        }
    }
    if let (Some(wanted), true) = (args.provider, tested.is_empty()) {
        return Err(usage(format!(
            "nothing embeds with the provider {wanted}: choose it and its model with EMBEDDING_PROVIDER and EMBEDDING_MODEL"
        )));
    }
    // Several widths may be asked of one endpoint: all must be answered.
    let failing: BTreeSet<&str> = endpoints(&tested, false).collect();
    let well: BTreeSet<&str> = endpoints(&tested, true).collect();
    let resting = app.store().pauses(None).await?;
    for endpoint in well.difference(&failing) {
        app.resume_endpoint(endpoint).await?;
        if resting.iter().any(|pause| pause.endpoint == **endpoint) {
            let ids = [(*endpoint).to_owned()];
            app.audit("provider", "endpoint may be asked again", &ids, None).await;
        }
    }
    context.output.list(&tested, table)?;
    for failed in tested.iter().filter_map(|tested| tested.failure.as_ref()) {
        context.output.note(format!("{}\n  {}", failed.message, failed.mend));
    }
    match tested.iter().all(|tested| tested.success) {
        true => Ok(Ended::Well),
        false => Ok(Ended::Unhealthy),
    }
}

fn endpoints(tested: &[Tested], success: bool) -> impl Iterator<Item = &str> {
    let alike = tested.iter().filter(move |tested| tested.success == success);
    alike.filter_map(|tested| tested.endpoint.as_deref())
}

async fn test(app: &App, spec: &SpaceSpec) -> Tested {
    let (endpoint, result) = match app.provider(spec).await {
        Ok(provider) => (
            Some(provider.endpoint().to_owned()),
            canary::try_provider(&provider).await,
        ),
        Err(unserved) => (
            None,
            Err(Failure::Misconfigured {
                message: unserved.to_string(),
            }),
        ),
    };
    let latency = result.as_ref().ok();
    Tested {
        provider: spec.provider,
        model: spec.model.clone(),
        dimensions: spec.dimensions,
        endpoint,
        success: result.is_ok(),
        latency_ms: latency.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        failure: result.err().map(|failure| Told {
            kind: failure.kind(),
            message: failure.message().to_owned(),
            mend: failure.mend(),
        }),
    }
}

fn table(tested: &[Tested]) -> Table {
    let columns = [
        ("provider", Align::Left),
        ("model", Align::Left),
        ("width", Align::Right),
        ("", Align::Left),
        ("ms", Align::Right),
        ("endpoint", Align::Left),
    ];
    let mut table = Table::new(&columns, "nothing to test");
    for one in tested {
        table.row([
            one.provider.to_string(),
            one.model.clone(),
            one.dimensions.to_string(),
            one.failure.as_ref().map_or("ok", |told| told.kind).to_owned(),
            one.latency_ms.map_or_else(String::new, |ms| ms.to_string()),
            one.endpoint.clone().unwrap_or_default(),
        ]);
    }
    table
}
