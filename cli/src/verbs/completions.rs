//! `completions SHELL`

use std::io;

use anyhow::{Context as _, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::Context;
use crate::args::Cli;
use crate::exit::Ended;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    shell: Shell,
}

pub(crate) async fn run(args: Args, _context: &Context) -> Result<Ended> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cronvec", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script).context("cannot write to standard output")?;
    Ok(Ended::Well)
}
