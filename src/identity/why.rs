//! `palisade identity why`: selectors seen, entries that match, and entries that nearly do.

use anyhow::Result;
use clap::Args;
use palisade_wire::node::{WhyRequest, WhyResponse};
use serde_json::{Value, json};

use super::{AgentOptions, Format, identity_json, pretty};
use crate::exit::Exit;
use crate::output::print;

/// Which process.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Number of the process.
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    agent: AgentOptions,
}

/// Ends with 2 if the process has no identity, and with 1 if there is no such process any more.
pub(super) async fn run(options: &Options) -> Result<Exit> {
    let answer = options.agent.client().why(WhyRequest { pid: options.pid }).await;
    let answer = answer.map_err(|status| options.agent.error(&status))?.into_inner();
    let text = match options.output {
        Format::Json => pretty(&as_json(&answer)),
        Format::Table => as_text(&answer),
    };
    print(&text)?;
    Ok(if answer.identities.is_empty() { Exit::Denied } else { Exit::Done })
}

fn as_text(answer: &WhyResponse) -> String {
    let mut lines = vec![answer.verdict.clone()];
    let mut part = |title: &str, of: Vec<String>| {
        if !of.is_empty() {
            lines.push(String::new());
            lines.push(title.to_owned());
            lines.extend(of.into_iter().map(|line| format!("  {line}")));
        }
    };
    let identity = |one: &palisade_wire::node::Identity| match one.problem.as_str() {
        "" => one.spiffe_id.clone(),
        problem => format!("{} (not served: {problem})", one.spiffe_id),
    };
    part("identities, the first is the default", answer.identities.iter().map(identity).collect());
    part("selectors seen", answer.selectors.clone());
    let unknown = answer.unknown.iter().map(|unknown| format!("{}: {}", unknown.kind, unknown.reason));
    part("not known", unknown.collect());
    let near = answer
        .near
        .iter()
        .map(|near| format!("{} ({}): misses {}", near.entry_id, near.spiffe_id, near.missing.join(" ")));
    part("entries that nearly match", near.collect());
    lines.join("\n") + "\n"
}

fn as_json(answer: &WhyResponse) -> Value {
    let near = answer.near.iter().map(|near| {
        json!({"entry": near.entry_id, "spiffeId": near.spiffe_id, "matched": near.matched, "missing": near.missing})
    });
    let unknown = answer.unknown.iter().map(|unknown| json!({"kind": unknown.kind, "reason": unknown.reason}));
    json!({
        "verdict": answer.verdict,
        "refused": (!answer.refused.is_empty()).then_some(&answer.refused),
        "identities": answer.identities.iter().map(identity_json).collect::<Vec<_>>(),
        "selectors": answer.selectors,
        "unknown": unknown.collect::<Vec<_>>(),
        "near": near.collect::<Vec<_>>(),
    })
}
