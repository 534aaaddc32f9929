//! What is found out about vectors that a table has already, and what is said of it, before they are adopted.

use anyhow::Result;
use cronvec_nouns::space::SpaceSpec;
use cronvec_pipeline::{ALIKE, AdoptionCheck, Unserved, check_adoption};
use cronvec_store::projects::Project;
use cronvec_store::sources::NewSource;

use crate::app::App;
use crate::exit::usage;
use crate::output::count;
use crate::verbs::as_usage;

/// Embeds a sample of the texts and compares. None where nothing is to be adopted, or the column has no vectors. What isn't
/// alike, or can't be compared, is an error.
pub(crate) async fn check(
    app: &App,
    new: &NewSource<'_>,
    project: &Project,
    space: &SpaceSpec,
) -> Result<Option<AdoptionCheck>> {
    if new.adopt.is_none() {
        return Ok(None);
    }
    let sample = app.store().sample_for_adoption(new, project, space).await;
    let sample = sample.map_err(as_usage)?;
    if sample.is_empty() {
        return Ok(None);
    }
    let provider = match app.provider(space).await {
        Ok(provider) => provider,
        Err(error @ (Unserved::NotConfigured(_) | Unserved::Secret(_))) => {
            let mend = "set the provider's key and address as where the workers run";
            return Err(unchecked(&error.to_string(), mend));
        }
        Err(Unserved::Misconfigured(failure)) => return Err(unchecked(failure.message(), failure.mend())),
    };
    let batch_size = app.settings().embedding.batch_size;
    let check = check_adoption(&provider, &sample, batch_size).await;
    let check = check.map_err(|failure| unchecked(failure.message(), failure.mend()))?;
    if check.compared == 0 {
        let why = "each text that was looked at is longer than the model reads";
        return Err(unchecked(
            why,
            "leave --adopt-existing out, and all of it is embedded in chunks",
        ));
    }
    if check.is_refused() {
        return Err(refused(new, space, &check));
    }
    Ok(Some(check))
}

fn unchecked(why: &str, mend: &str) -> anyhow::Error {
    usage(format!(
        "nobody knows whether the column's vectors are the model's, since a sample can't be embedded: {why}; {mend}, or add \
         --force-adopt to take them unchecked"
    ))
}

fn refused(new: &NewSource<'_>, space: &SpaceSpec, check: &AdoptionCheck) -> anyhow::Error {
    let prefix = match space.document_prefix.as_str() {
        "" => "none".to_owned(),
        prefix => format!("'{prefix}'"),
    };
    let mut said = format!(
        "the vectors in {} of {} aren't those that {} gives these texts: {}. Likely causes:\n  \
         another model, or another version of it\n  \
         a prefix or an input type: this project's prefix is {prefix}, see EMBEDDING_DOCUMENT_PREFIX\n  \
         texts that were joined, cut or cleaned otherwise: give --text the expression that they were made of\n  \
         texts that changed after they were embedded",
        new.embedding_column.unwrap_or_default(),
        new.table,
        space.model,
        figures(check),
    );
    said += "\n  long texts of which only the beginning was embedded";
    if let Some(longer) = longer(check) {
        said += &format!("; {longer}");
    }
    said += "\nTo have all of it embedded anew, leave --adopt-existing out; to take the vectors as they are, add --force-adopt";
    usage(said)
}

fn figures(check: &AdoptionCheck) -> String {
    format!(
        "{} of {} that were compared have a cosine below {ALIKE} (median {:.3}, lowest {:.3})",
        check.unlike, check.compared, check.median_cosine, check.lowest_cosine
    )
}

fn longer(check: &AdoptionCheck) -> Option<String> {
    (check.longer_than_a_chunk > 0).then(|| {
        format!(
            "{} of {} texts that were looked at are longer than a chunk of {} tokens",
            count(check.longer_than_a_chunk as u64),
            count(check.texts as u64),
            check.chunk_tokens
        )
    })
}

/// What is said of vectors that are adopted.
pub(crate) fn in_words(check: &AdoptionCheck) -> String {
    let mut lines = vec![match check.unlike {
        0 => format!(
            "{} vectors were compared with what the model gives their texts: lowest cosine {:.3}",
            check.compared, check.lowest_cosine
        ),
        _ => format!(
            "{}: their texts may have changed since; to have such rows embedded anew, empty their column before",
            figures(check)
        ),
    }];
    lines.extend(longer(check).map(|longer| {
        format!(
            "{longer}: the one vector that they have stands for all of it until the text changes; to have them embedded in \
             chunks, empty their column before"
        )
    }));
    lines.join("\n")
}
