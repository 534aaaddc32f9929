use std::process::ExitCode;

fn main() -> ExitCode {
    cronvec::run(std::env::args_os())
}
