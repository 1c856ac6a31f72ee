//! The filters that query and follow share, in the manner of `hubble observe`.

use clap::{Args, ValueEnum};
use palisade_wire::audit::Event;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for eyes.
    Table,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verdict {
    Allow,
    Deny,
}

/// Who, whom and what was decided.
#[derive(Args, Clone, Debug)]
pub(super) struct Filter {
    /// Only this verdict.
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// Caller: principal, namespace/workload, workload, namespace or address; a trailing * is a prefix.
    #[arg(long, value_name = "WHO")]
    from: Option<String>,
    /// Called: as --from.
    #[arg(long, value_name = "WHOM")]
    to: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

impl Filter {
    /// The filter as the server takes it, without a window.
    pub(super) fn query(&self) -> palisade_wire::admin::AuditQuery {
        let verdict = match self.verdict {
            None => "",
            Some(Verdict::Allow) => "allow",
            Some(Verdict::Deny) => "deny",
        };
        palisade_wire::admin::AuditQuery {
            verdict: verdict.to_owned(),
            from: self.from.clone().unwrap_or_default(),
            to: self.to.clone().unwrap_or_default(),
            ..Default::default()
        }
    }
}

/// Events as JSON lines.
pub(super) fn json_lines(events: &[Event]) -> String {
    events.iter().map(|event| format!("{}\n", palisade_audit::render::json(event))).collect()
}
