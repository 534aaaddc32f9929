//! `rotate-secret`

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The secret that the workers' calls bear
    #[arg(long, value_name = "ARN", env = "CRON_SECRET_ARN")]
    secret: String,
    /// The one before it, which stays good until the next rotation
    #[arg(long, value_name = "ARN", env = "CRON_SECRET_PREVIOUS_ARN")]
    previous: String,
    /// The group of the schedules that bear it
    #[arg(long, value_name = "GROUP")]
    schedules: String,
    /// Don't wait for ticks of the last minute that still bear the one before; they are refused
    #[arg(long)]
    at_once: bool,
}

#[cfg(not(feature = "aws"))]
pub(crate) async fn run(_args: Args, _context: &crate::Context) -> anyhow::Result<crate::exit::Ended> {
    Err(crate::aws::needed("rotate-secret"))
}

#[cfg(feature = "aws")]
pub(crate) use with_aws::run;

#[cfg(feature = "aws")]
mod with_aws {
    use anyhow::Result;
    use cronvec_deploy::{Rotation, RotationError};
    use serde_json::json;

    use super::super::left_as_it_is;
    use super::Args;
    use crate::Context;
    use crate::exit::{Ended, usage};

    pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
        let rotation = Rotation::new(&args.secret, &args.previous, &args.schedules).await;
        let rotation = rotation.map_err(|error| match error {
            RotationError::NoArn(_) => usage(error.to_string()),
            error => error.into(),
        })?;
        let aligned = rotation.align().await?;
        if !aligned.is_empty() {
            // Somebody broke off between the two, or wrote the secret by hand. What the schedules bore may still be on its way.
            return told(context, false, &aligned);
        }
        let question = "rotate the secret? Other callers must be given the new one before the next rotation";
        if !context.confirm(question)? {
            return left_as_it_is(context);
        }
        let wait = rotation.wait().await?;
        if !wait.is_zero() && !args.at_once {
            context.output.note(format!(
                "the last rotation was a moment ago: waiting {} s for what still bears the secret before it",
                wait.as_secs() + 1
            ));
            tokio::time::sleep(wait).await;
        }
        let rotated = rotation.rotate().await?;
        told(context, true, &rotated)
    }

    fn told(context: &Context, rotated: bool, schedules: &[String]) -> Result<Ended> {
        let object = json!({"success": true, "rotated": rotated, "schedules": schedules});
        context.output.show(&object, || {
            let names = schedules.join(", ");
            match rotated {
                true => format!("rotated; these schedules bear the new secret: {names}"),
                false => format!(
                    "these schedules did not bear the current secret and do now: {names}; nothing was rotated, the same again does"
                ),
            }
        })?;
        Ok(Ended::Well)
    }
}
