//! Joins the embedded PostgreSQL until standard input ends or, with `--hold`, until it is killed.

use std::io::{Read, Write, stdin, stdout};

use cronvec::local::Server;

fn main() -> anyhow::Result<()> {
    let server = Server::start_in_memory(&|step| eprintln!("{step}"))?;
    println!("{}", server.url("postgres"));
    stdout().flush()?;
    if std::env::args().any(|argument| argument == "--hold") {
        loop {
            std::thread::park();
        }
    }
    stdin().read_to_end(&mut Vec::new())?;
    server.stop()
}
