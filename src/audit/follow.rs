//! `palisade audit follow`.

use anyhow::Result;
use clap::Args;
use palisade_wire::admin::audit_answer;

use super::filter::{Filter, Format, json_lines};
use crate::admin::AdminOptions;
use crate::exit::Exit;
use crate::output::print;

/// What to watch.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    admin: AdminOptions,
}

pub(super) async fn run(options: &Options) -> Result<Exit> {
    let refused = |status: tonic::Status| options.admin.error(&status);
    let answers = options.admin.client().follow_audit(options.filter.query()).await;
    let mut answers = answers.map_err(refused)?.into_inner();
    let table = options.filter.output == Format::Table;
    if table && !print(&palisade_audit::render::follow_header())? {
        return Ok(Exit::Done);
    }
    loop {
        let answer = tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return interrupted.map(|()| Exit::Done).map_err(Into::into),
            answer = answers.message() => answer.map_err(refused)?,
        };
        let Some(answer) = answer else { anyhow::bail!("the server ended the stream") };
        let Some(audit_answer::Item::Event(event)) = answer.item else { continue };
        let text = if table { palisade_audit::render::follow_row(&event) } else { json_lines(&[event]) };
        if !print(&text)? {
            return Ok(Exit::Done);
        }
    }
}
