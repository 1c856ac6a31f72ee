//! `palisade identity list`.

use anyhow::Result;
use clap::Args;
use palisade_wire::node::{Identity, ListResponse};
use serde_json::{Value, json};

use super::{AgentOptions, Format, identity_json, pretty, table, time};
use crate::exit::Exit;
use crate::output::print;

/// Whose identities.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    agent: AgentOptions,
}

pub(super) async fn run(options: &Options) -> Result<Exit> {
    let answer = options.agent.list().await?;
    let text = match options.output {
        Format::Json => pretty(&as_json(&answer)),
        Format::Table => {
            let header = ["SPIFFE ID", "ENTRY", "EXPIRES", "STATE"].map(str::to_owned).to_vec();
            let rows: Vec<_> = std::iter::once(header).chain(answer.identities.iter().map(row)).collect();
            table(&rows)
        }
    };
    print(&text)?;
    if !answer.following {
        eprintln!("the server is not followed at the moment: entries and trust are its last word");
    }
    if !answer.last_error.is_empty() {
        eprintln!("the agent's own certificate was not renewed: {}", answer.last_error);
    }
    Ok(Exit::Done)
}

fn row(identity: &Identity) -> Vec<String> {
    let entry = if identity.entry_id.is_empty() { "(the agent)" } else { &identity.entry_id };
    let state = if identity.problem.is_empty() { "good" } else { &identity.problem };
    vec![identity.spiffe_id.clone(), entry.to_owned(), time(identity.not_after), state.to_owned()]
}

fn as_json(answer: &ListResponse) -> Value {
    let domains = answer.trust_domains.iter().map(|domain| {
        json!({"name": domain.name, "authorities": domain.authorities, "digest": domain.digest,
               "deniedSerials": domain.denied_serials})
    });
    json!({
        "identities": answer.identities.iter().map(identity_json).collect::<Vec<_>>(),
        "trustDomains": domains.collect::<Vec<_>>(),
        "following": answer.following,
        "lastError": (!answer.last_error.is_empty()).then_some(&answer.last_error),
    })
}
