//! The measuring program behind `cargo xtask bench`.

#![expect(clippy::print_stdout, reason = "figures are this program's data")]

use std::process::ExitCode;

use anyhow::{Result, bail};
use palisade_tests::bench::authz;
use palisade_tests::bench::identity;
use palisade_tests::bench::proxy::{self, Row};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("palisade-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let json = arguments.iter().any(|argument| argument == "--json");
    match arguments.first().map(String::as_str) {
        Some("authz") => run_authz(json),
        Some("identity") => run_identity(json, arguments.iter().any(|argument| argument == "--streams-only")),
        Some("proxy") => run_proxy(json),
        other => bail!("unknown benchmark {other:?}: write `authz`, `identity` or `proxy`"),
    }
}

fn run_authz(json: bool) -> Result<()> {
    if !json {
        println!("{:<12} {:<9} {:>7} {:>14} {:>14}", "BENCH", "ENGINE", "RULES", "P50 ns", "P99 ns");
    }
    authz::run(&mut |row| {
        if json {
            println!("{}", serde_json::to_string(row)?);
        } else {
            println!("{:<12} {:<9} {:>7} {:>14} {:>14}", row.bench, row.engine, row.rules, row.ns_p50, row.ns_p99);
        }
        Ok(())
    })
}

fn run_identity(json: bool, streams_only: bool) -> Result<()> {
    if !json {
        println!(
            "{:<9} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>7}",
            "BENCH", "PER CPU-S", "CPU us", "REST us", "P50 ms", "P99 ms", "SECONDS", "RSS MB", "KB/STREAM", "FAILED"
        );
    }
    identity::run(streams_only, |row| {
        if json {
            println!("{}", serde_json::to_string(row)?);
            return Ok(());
        }
        println!(
            "{:<9} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>7}",
            row.bench,
            figure(row.per_cpu_s, 0),
            figure(row.cpu_us, 1),
            figure(row.rest_us, 1),
            figure(row.p50_ms, 2),
            figure(row.p99_ms, 2),
            figure(row.seconds, 2),
            figure(row.rss_mb, 1),
            figure(row.kb_per_stream, 1),
            row.failed.map_or("-".to_owned(), |failed| failed.to_string()),
        );
        Ok(())
    })
}

/// A number with so many decimals, or a dash.
fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

fn run_proxy(json: bool) -> Result<()> {
    if !json {
        println!(
            "{:<6} {:<9} {:>9} {:>10} {:>10} {:>7} {:>7} {:>9} {:>9} {:>13} {:>8}",
            "BENCH",
            "TOPOLOGY",
            "REQ/S",
            "PER CPU-S",
            "ALL/CPU-S",
            "OUT %",
            "IN %",
            "P50 us",
            "P99 us",
            "RSS out/in MB",
            "SECONDS"
        );
    }
    proxy::run(|row| {
        if json {
            println!("{}", serde_json::to_string(row)?);
        } else {
            table(row);
        }
        Ok(())
    })
}

fn table(row: &Row) {
    let memory = row.rss_mb.map_or("-".to_owned(), |(outbound, inbound)| format!("{outbound:.0}/{inbound:.0}"));
    println!(
        "{:<6} {:<9} {:>9} {:>10} {:>10} {:>7} {:>7} {:>9} {:>9} {:>13} {:>8}",
        row.bench,
        row.topology,
        figure(row.rps, 0),
        figure(row.per_cpu_s, 0),
        figure(row.all_per_cpu_s, 0),
        figure(row.cpu_percent.map(|(outbound, _)| outbound), 0),
        figure(row.cpu_percent.map(|(_, inbound)| inbound), 0),
        figure(row.p50_us, 0),
        figure(row.p99_us, 0),
        memory,
        figure(row.seconds, 2),
    );
}
