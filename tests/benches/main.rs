//! Measures beside their ceilings: `cargo bench -p cronvec-tests -- [vectors|latency|queue|claims|page]`.
//!
//! Each figure stands next to what the same server does in the same run without the work around it; three rounds, orders
//! alternating, medians. What it prints is what `docs/PERFORMANCE.md` says.

mod claims;
mod machine;
mod page;
mod queue;
mod records;
mod rounds;
mod vectors;
mod worker;

use anyhow::bail;

const USAGE: &str = "usage: cargo bench -p cronvec-tests -- [vectors] [latency] [queue] [claims] [page] \
                     [--rounds N] [--records N] [--most N]";

#[derive(Clone, Copy, Debug)]
struct Sizes {
    rounds: usize,
    records: usize,
    /// Of the long queues; of finished jobs ten times as many.
    most: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut sizes = Sizes {
        rounds: 3,
        records: 32_322,
        most: 1_000_000,
    };
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|value| value.parse().ok());
        match argument.as_str() {
            // What cargo itself says to a benchmark.
            "--bench" => {}
            "--rounds" => sizes.rounds = number().filter(|rounds| *rounds > 0).ok_or(anyhow::anyhow!(USAGE))?,
            "--records" => sizes.records = number().ok_or(anyhow::anyhow!(USAGE))?,
            "--most" => sizes.most = number().ok_or(anyhow::anyhow!(USAGE))?,
            _ if argument.starts_with('-') => bail!(USAGE),
            _ => wanted.push(argument),
        }
    }
    if wanted.is_empty() {
        wanted = ["vectors", "latency", "queue", "claims", "page"]
            .map(String::from)
            .to_vec();
    }
    cronvec_tests::database::keep_on_disk();
    machine::describe().await;
    for name in &wanted {
        println!("\n## {name}\n");
        match name.as_str() {
            "vectors" => vectors::stored(sizes).await,
            "latency" => vectors::kept_waiting(sizes).await,
            "queue" => queue::all(sizes).await,
            "claims" => claims::long_queues(sizes.most).await,
            "page" => page::refreshes(sizes.most).await,
            _ => bail!(USAGE),
        }
    }
    Ok(())
}
