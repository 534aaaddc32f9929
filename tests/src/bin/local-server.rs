//! Holds the embedded PostgreSQL until standard input ends or the process is killed.

use std::io::{Read, Write, stdin, stdout};

use cronvec::local::Server;

fn main() -> anyhow::Result<()> {
    let server = Server::start_reporting(&|step| eprintln!("{step}"))?;
    println!("{}", server.url("postgres"));
    stdout().flush()?;
    stdin().read_to_end(&mut Vec::new())?;
    server.stop()
}
