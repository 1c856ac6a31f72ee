//! `palisade identity`: what the agent of this machine holds, and who gets it.

mod fetch;
mod list;
mod show;
mod why;

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use palisade_wire::node::node_client::NodeClient;
use palisade_wire::node::{Identity, ListRequest, ListResponse};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::exit::Exit;

/// What to ask.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// List the identities of this machine's agent.
    List(list::Options),
    /// Show one of them in full; never its key.
    Show(show::Options),
    /// Fetch the identities of this very process over the Workload API, as an application would.
    Fetch(fetch::Options),
    /// Say why a process has the identities that it has, or none.
    Why(why::Options),
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Where the agent is.
#[derive(Args, Clone, Debug)]
pub(super) struct AgentOptions {
    /// The agent's administration socket: `admin.sock` in its data directory.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/palisade/agent/admin.sock",
        env = "PALISADE_AGENT_SOCKET"
    )]
    agent_socket: PathBuf,
}

impl Verb {
    pub(crate) fn run(self) -> Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self {
                Self::List(options) => list::run(&options).await,
                Self::Show(options) => show::run(&options).await,
                Self::Fetch(options) => fetch::run(&options).await,
                Self::Why(options) => why::run(&options).await,
            }
        })
    }
}

impl AgentOptions {
    fn client(&self) -> NodeClient<Channel> {
        NodeClient::new(palisade_wire::channel::unix(&self.agent_socket)).max_decoding_message_size(256 << 20)
    }

    async fn list(&self) -> Result<ListResponse> {
        let answer = self.client().list(ListRequest {}).await;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner())
    }

    /// A status as a sentence; without an agent the socket is named.
    fn error(&self, status: &tonic::Status) -> anyhow::Error {
        match status.code() {
            tonic::Code::Unavailable => anyhow!(
                "cannot reach the agent at {}: {}; is it running, and are you its user? Name its socket with --agent-socket",
                self.agent_socket.display(),
                status.message(),
            ),
            code => anyhow!("{} ({code:?})", status.message()),
        }
    }
}

/// A time of the agent; `-` where there is none.
fn time(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
        }
        _ => "-".to_owned(),
    }
}

fn identity_json(identity: &Identity) -> Value {
    json!({
        "spiffeId": identity.spiffe_id,
        "entry": (!identity.entry_id.is_empty()).then_some(&identity.entry_id),
        "selectors": identity.selectors,
        "hint": identity.hint,
        "notBefore": identity.not_before,
        "notAfter": identity.not_after,
        "renewAt": (identity.renew_at > 0).then_some(identity.renew_at),
        "serial": identity.serial,
        "problem": (!identity.problem.is_empty()).then_some(&identity.problem),
        "federatesWith": identity.federates_with,
        "dnsNames": identity.dns_names,
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Lines of columns, as wide as they need to be.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: String = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}  ")).collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{table, time};

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["long".to_owned(), String::new()]];
        assert_eq!(table(&rows), "A     B\nlong\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn times_are_utc_and_none_is_a_dash() {
        assert_eq!((time(0).as_str(), time(-1).as_str()), ("-", "-"));
        assert_eq!(time(1_800_000_000), "2027-01-15T08:00:00Z");
    }
}
