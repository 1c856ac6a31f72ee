//! `palisade identity show`.

use anyhow::{Result, bail};
use clap::Args;
use palisade_wire::node::Identity;

use super::{AgentOptions, Format, identity_json, pretty, table, time};
use crate::exit::Exit;
use crate::output::print;

/// Which identity.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A SPIFFE ID, or the name of an entry.
    #[arg(value_name = "SPIFFE_ID|ENTRY")]
    name: String,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    agent: AgentOptions,
}

pub(super) async fn run(options: &Options) -> Result<Exit> {
    let answer = options.agent.list().await?;
    let wanted = |identity: &&Identity| identity.spiffe_id == options.name || identity.entry_id == options.name;
    let found: Vec<&Identity> = answer.identities.iter().filter(wanted).collect();
    if found.is_empty() {
        bail!("this agent has no identity `{}`; `palisade identity list` names those it has", options.name);
    }
    for identity in found {
        let text = match options.output {
            Format::Json => {
                let mut value = identity_json(identity);
                if let Some(map) = value.as_object_mut() {
                    map.insert("certificateChain".to_owned(), identity.certificate_chain.clone().into());
                }
                pretty(&value)
            }
            Format::Table => format!("{}{}", table(&rows(identity)), identity.certificate_chain),
        };
        print(&text)?;
    }
    Ok(Exit::Done)
}

fn rows(identity: &Identity) -> Vec<Vec<String>> {
    let entry = if identity.entry_id.is_empty() { "(the agent)" } else { &identity.entry_id };
    let state = if identity.problem.is_empty() { "good" } else { &identity.problem };
    let rows = [
        ("SPIFFE ID", identity.spiffe_id.clone()),
        ("entry", entry.to_owned()),
        ("state", state.to_owned()),
        ("selectors", identity.selectors.join(" ")),
        ("hint", identity.hint.clone()),
        ("DNS names", identity.dns_names.join(" ")),
        ("federates with", identity.federates_with.join(" ")),
        ("serial", identity.serial.clone()),
        ("valid from", time(identity.not_before)),
        ("expires", time(identity.not_after)),
        ("renewed at", time(identity.renew_at)),
    ];
    rows.into_iter()
        .filter(|(_, value)| !value.is_empty() && value != "-")
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect()
}
