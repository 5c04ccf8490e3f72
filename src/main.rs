use std::process::ExitCode;

fn main() -> ExitCode {
    roadstead::cli::run(std::env::args_os())
}
