//! `palisade audit query`.

use anyhow::Result;
use clap::Args;
use palisade_wire::admin::{Completeness, audit_answer};
use palisade_wire::audit::Event;

use super::filter::{Filter, Format, json_lines};
use crate::admin::AdminOptions;
use crate::exit::{self, Exit};
use crate::output::print;

/// What to ask.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    filter: Filter,
    /// Begin of the window: an age such as 90s, 15m, 1h or 7d, or a time such as 2026-11-21T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End of the window, as --since.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Newest rows kept, 10000 at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    admin: AdminOptions,
}

pub(super) async fn run(options: &Options) -> Result<Exit> {
    let mut query = options.filter.query();
    query.since_ns = time(options.since.as_deref(), "--since")?;
    query.until_ns = time(options.until.as_deref(), "--until")?;
    let until_ns = query.until_ns;
    query.limit = options.limit;
    let refused = |status: tonic::Status| options.admin.error(&status);
    let mut answers = options.admin.client().query_audit(query).await.map_err(refused)?.into_inner();
    let (mut events, mut completeness) = (Vec::<Event>::new(), None);
    while let Some(answer) = answers.message().await.map_err(refused)? {
        match answer.item {
            Some(audit_answer::Item::Event(event)) => events.push(event),
            Some(audit_answer::Item::Completeness(last)) => completeness = Some(last),
            None => {}
        }
    }
    let text = match options.filter.output {
        Format::Table => palisade_audit::render::table(&events),
        Format::Json => json_lines(&events),
    };
    print(&text)?;
    say(completeness, reaches_now(until_ns));
    Ok(Exit::Done)
}

/// Whether the window reaches into the second that enforcers may not have reported yet: a group commit, a batch, a commit here.
fn reaches_now(until_ns: u64) -> bool {
    const UNREPORTED_NS: u64 = 1_000_000_000;
    until_ns == 0 || until_ns.saturating_add(UNREPORTED_NS) > palisade_audit::NanoClock::system().now()
}

/// An answer always says whether it is complete.
fn say(completeness: Option<Completeness>, open_ended: bool) {
    match completeness {
        Some(Completeness { complete: true, rows, .. }) if open_ended => {
            eprintln!("{rows} row(s), complete; events of the last second may still be on their way");
        }
        Some(Completeness { complete: true, rows, .. }) => eprintln!("{rows} row(s), complete"),
        Some(Completeness { rows, reasons, .. }) => eprintln!("{rows} row(s), not complete: {}", reasons.join("; ")),
        None => eprintln!("the server ended the answer early: it is not complete"),
    }
}

fn time(text: Option<&str>, flag: &str) -> Result<u64> {
    let Some(text) = text else { return Ok(0) };
    palisade_audit::window::parse(text, palisade_audit::NanoClock::system().now())
        .map_err(|error| exit::usage(format!("{flag}: {error}")))
}
