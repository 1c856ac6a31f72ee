//! `palisade ca status|rotate|taint`.

use anyhow::Result;
use clap::Args;
use palisade_wire::admin::{Authorities, Authority, GetAuthoritiesRequest, RotateAuthoritiesRequest};
use serde_json::{Value, json};

use super::table::{self, Format, time, time_or_null};
use crate::admin::AdminOptions;
use crate::exit::Exit;
use crate::output::print;

/// How to show them.
#[derive(Args, Debug)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    admin: AdminOptions,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Which step.
#[derive(Args, Debug)]
pub(crate) struct RotateOptions {
    #[command(flatten)]
    step: Steps,
    /// With --retire: only this authority.
    #[arg(long, value_name = "ID", requires = "retire")]
    authority: Option<String>,
    /// The new authority signs after this long though an agent has not acknowledged its root; 0s: at once.
    #[arg(long, value_name = "DURATION", conflicts_with = "retire")]
    activate_after: Option<humantime::Duration>,
    #[command(flatten)]
    status: StatusOptions,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Steps {
    /// Make a new authority and put its root into everybody's bundle; it signs when told to.
    #[arg(long)]
    prepare: bool,
    /// Let the prepared authority sign, once every agent that follows has acknowledged its root.
    #[arg(long)]
    activate: bool,
    /// Take old authorities whose certificates have ended out of the bundle; a tainted one in any case.
    #[arg(long)]
    retire: bool,
    /// Make a new authority, and let the server do the other steps as soon as each is safe.
    #[arg(long)]
    auto: bool,
}

/// Which authority.
#[derive(Args, Debug)]
pub(crate) struct TaintOptions {
    /// Identifier of an old authority, as `palisade ca status` shows it.
    #[arg(value_name = "ID")]
    authority: String,
    #[command(flatten)]
    status: StatusOptions,
}

pub(super) async fn status(options: &StatusOptions) -> Result<Exit> {
    let answer = options.admin.client().get_authorities(GetAuthoritiesRequest {}).await;
    show(options, &answer.map_err(|status| options.admin.error(&status))?.into_inner())
}

pub(super) async fn rotate(options: &RotateOptions) -> Result<Exit> {
    let steps = &options.step;
    let named =
        [(steps.prepare, "prepare"), (steps.activate, "activate"), (steps.retire, "retire"), (steps.auto, "auto")];
    let step = named.into_iter().find_map(|(chosen, name)| chosen.then_some(name)).unwrap_or_default();
    let request = RotateAuthoritiesRequest {
        step: step.to_owned(),
        authority: options.authority.clone().unwrap_or_default(),
        activate_after: options.activate_after.map(|after| after.as_secs()),
    };
    take(&options.status, request).await
}

pub(super) async fn taint(options: &TaintOptions) -> Result<Exit> {
    let authority = options.authority.clone();
    take(&options.status, RotateAuthoritiesRequest { step: "taint".to_owned(), authority, activate_after: None }).await
}

/// Takes a step. One that something stands in the way of ends with an exit code of its own, so that a script can wait.
async fn take(options: &StatusOptions, request: RotateAuthoritiesRequest) -> Result<Exit> {
    match options.admin.client().rotate_authorities(request).await {
        Ok(answer) => show(options, &answer.into_inner()),
        Err(status) if status.code() == tonic::Code::FailedPrecondition => {
            eprintln!("palisade: {}", status.message());
            Ok(Exit::Blocked)
        }
        Err(status) => Err(options.admin.error(&status)),
    }
}

fn show(options: &StatusOptions, all: &Authorities) -> Result<Exit> {
    match options.output {
        Format::Table => print(&text(all))?,
        Format::Json => print(&format!("{:#}\n", document(all)))?,
    };
    if !all.cacerts_refused.is_empty() {
        eprintln!("the files in --cacerts are refused: {}", all.cacerts_refused);
    }
    Ok(Exit::Done)
}

fn text(all: &Authorities) -> String {
    let mut rows = vec![["ID", "STATE", "ORIGIN", "FROM", "TO", "NEXT", "AT", "NOT ACKNOWLEDGED"].map(str::to_owned)];
    for one in &all.authorities {
        let state = if one.tainted { format!("{} (tainted)", one.state) } else { one.state.clone() };
        let waiting = if one.unacknowledged.is_empty() { "-".to_owned() } else { one.unacknowledged.join(",") };
        let (from, to, at) = (time(one.not_before), time(one.not_after), time(one.next_at));
        rows.push([one.id.clone(), state, one.origin.clone(), from, to, one.next.clone(), at, waiting]);
    }
    let digest: String = all.bundle_digest.chars().take(16).collect();
    let (domain, sequence, followers) = (&all.trust_domain, all.sequence, all.followers.len());
    format!("{}\n{domain}: bundle {sequence} ({digest}), {followers} agent(s) follow\n", table::render(&rows))
}

fn document(all: &Authorities) -> Value {
    let followers = all.followers.iter().map(|one| {
        json!({"spiffeId": one.spiffe_id, "address": one.address, "bundleDigest": one.bundle_digest, "rejected": one.rejected,
            "acknowledged": one.bundle_digest == all.bundle_digest})
    });
    json!({
        "trustDomain": all.trust_domain,
        "bundle": {"sequence": all.sequence, "digest": all.bundle_digest},
        "authorities": all.authorities.iter().map(authority).collect::<Vec<_>>(),
        "followers": followers.collect::<Vec<_>>(),
        "cacertsRefused": Some(&all.cacerts_refused).filter(|text| !text.is_empty()),
    })
}

fn authority(one: &Authority) -> Value {
    json!({
        "id": one.id,
        "state": one.state,
        "origin": one.origin,
        "tainted": one.tainted,
        "notBefore": time_or_null(one.not_before),
        "notAfter": time_or_null(one.not_after),
        "preparedAt": time_or_null(one.prepared_at),
        "activatedAt": time_or_null(one.activated_at),
        "replacedAt": time_or_null(one.replaced_at),
        "activateBy": time_or_null(one.activate_by),
        "leavesUntil": time_or_null(one.leaves_until),
        "notAcknowledged": one.unacknowledged,
        "next": {"what": one.next, "at": time_or_null(one.next_at)},
    })
}
