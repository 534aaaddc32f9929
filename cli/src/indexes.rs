//! What is said of the indexes over an attached table's vector column.

use anyhow::Result;
use cronvec_store::sources::{ColumnIndexes, Source};

use crate::app::App;

pub(crate) async fn of(app: &App, source: &Source) -> Result<Option<ColumnIndexes>> {
    let project = app.store().project(&source.project).await?;
    let space = app.live_space(&project).await?;
    Ok(app.store().column_indexes(source, space.dimensions).await?)
}

/// Those of the table that is attached to a project, if one is.
pub(crate) async fn of_project(app: &App, project: &str) -> Result<Option<ColumnIndexes>> {
    let sources = app.store().sources().await?;
    match sources.iter().find(|source| source.project == project) {
        Some(source) => of(app, source).await,
        None => Ok(None),
    }
}

/// Before many vectors are written: what makes that slow, and how it is built afterwards instead.
pub(crate) fn before_filling(column: &ColumnIndexes) -> Option<String> {
    if column.indexes.is_empty() {
        return None;
    }
    let names: Vec<String> = column
        .indexes
        .iter()
        .map(|index| format!("{} ({})", index.name, index.method))
        .collect();
    let mut lines = vec![format!(
        "{} on {} takes part in each write of a vector, which makes filling the column many times slower; \
         to fill it first and build the index afterwards:",
        names.join(", "),
        column.column
    )];
    lines.extend(column.indexes.iter().map(|index| format!("  {};", index.drop)));
    lines.push("  cronvec backfill".to_owned());
    lines.extend(column.indexes.iter().map(|index| format!("  {};", index.create)));
    Some(lines.join("\n"))
}

/// After they were: how to get an index, where there is none.
pub(crate) fn after_filling(column: &ColumnIndexes) -> Option<String> {
    let build = column.build.as_ref()?;
    Some(format!(
        "{} has no vector index; to build one:\n  SET maintenance_work_mem = '1GB';\n  {build};",
        column.column
    ))
}
