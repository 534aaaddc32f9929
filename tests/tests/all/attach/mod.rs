//! Tables that people already have: attached, kept up with, let go.

mod again;
mod capture;
mod changes;
mod column;
mod faults;
mod frozen;
mod functions;
mod kinds;
mod origins;
mod refusals;
mod refusing_rows;
pub(super) mod rights;
mod take_over;
mod tenants;
mod together;
mod upgrade;

use cronvec_store::StoreError;
use cronvec_store::sources::{NewSource, Slice, Source};
use cronvec_tests::system::{PROJECT, System};
use serde_json::Value;

/// MAX_CONTENT_BYTES where nobody sets it.
const MOST_BYTES: usize = 10_000_000;

/// What most tests ask for: the primary key, title and body.
fn articles() -> NewSource<'static> {
    NewSource {
        table: "articles",
        key: &[],
        text: "title, body",
        metadata: None,
        filter: None,
        embedding_column: None,
        forgets: false,
        adopt: None,
        take_over: None,
    }
}

async fn create_articles(system: &System, rows: u32) {
    system
        .run_sql(&format!(
            "CREATE TABLE public.articles (id int PRIMARY KEY, title text NOT NULL, body text, views int NOT NULL DEFAULT 0);
             INSERT INTO public.articles SELECT n, 'title ' || n, 'body ' || n FROM generate_series(1, {rows}) AS n"
        ))
        .await;
}

async fn attach(system: &System, new: &NewSource<'_>) -> Result<Source, StoreError> {
    let project = system.store.project(PROJECT).await.unwrap();
    let source = system
        .store
        .attach(new, &project, &system.settings.embedding.new_space)
        .await?;
    pass(system, &source).await;
    Ok(source)
}

/// Slices to the end of the pass that is under way.
async fn pass(system: &System, source: &Source) -> Source {
    for _ in 0..100 {
        if let Slice::Through { .. } = system.store.reconcile_slice(source.id, MOST_BYTES).await.unwrap() {
            return system.store.source(&source.project).await.unwrap();
        }
    }
    panic!("a pass has no end");
}

/// A whole pass from the beginning.
async fn reconcile(system: &System, source: &Source) -> Source {
    system.store.begin_pass(source.id, false).await.unwrap();
    pass(system, source).await
}

/// Id → text of the records that live.
async fn texts(system: &System) -> Value {
    system
        .value("SELECT coalesce(jsonb_object_agg(id, content), '{}') FROM cronvec.records WHERE content IS NOT NULL")
        .await
}

/// What waits, in order.
async fn waiting(system: &System) -> Value {
    system
        .value("SELECT coalesce(jsonb_agg(record_id ORDER BY record_id), '[]') FROM cronvec.pending")
        .await
}
