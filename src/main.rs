#![doc = include_str!("../README.md")]

mod admin;
mod agent;
mod audit;
mod ca;
mod cli;
mod demo;
mod exit;
mod explain;
mod identity;
mod output;
mod policy;
mod proxy;
mod runtime;
mod server;
mod sink;
mod upstream;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::forgo_core_dumps();
    let parsed = match cli::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(exit) => return exit.into(),
    };
    match parsed.run() {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error).into(),
    }
}
