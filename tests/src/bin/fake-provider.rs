//! A provider in OpenAI's shape on loopback, for trying and for measuring: `--instant` is never the bottleneck.

use std::time::Duration;

use anyhow::{Context, bail};
use cronvec_tests::provider::{Options, Provider};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut options = Options {
        port: 4010,
        dimensions: 1536,
        ..Options::default()
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            arguments
                .next()
                .and_then(|value| value.parse::<u32>().ok())
                .context("a number is missing")
        };
        match argument.as_str() {
            "--port" => options.port = number()?.try_into()?,
            "--latency-ms" => options.latency = Duration::from_millis(number()?.into()),
            "--dimensions" => options.dimensions = number()?.try_into()?,
            "--instant" => options.instant = true,
            _ => bail!("usage: fake-provider [--port N] [--latency-ms N] [--dimensions N] [--instant]"),
        }
    }
    let provider = Provider::with(options).await;
    println!("{}", provider.url());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
