//! `palisade ca issued`: the record of what was issued.

use anyhow::Result;
use clap::Args;
use palisade_audit::{NanoClock, window};
use palisade_wire::admin::{Issuance, ListIssuancesRequest};
use serde_json::json;

use super::table::{self, Format, time, time_or_null};
use crate::admin::AdminOptions;
use crate::exit::{self, Exit};
use crate::output::print;

const SECOND_NS: u64 = 1_000_000_000;

/// Which issuances, and how to show them.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Those for this identity.
    #[arg(long, value_name = "SPIFFE_ID", conflicts_with = "serial")]
    spiffe_id: Option<String>,
    /// The one with this serial number, or the token with this `jti`.
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
    /// Those since then: an age such as 90s, 15m, 1h or 7d, or a time such as 2026-11-21T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The newest so many, 10000 at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    admin: AdminOptions,
}

pub(super) async fn run(options: &Options) -> Result<Exit> {
    let since = options.since.as_deref().map_or(Ok(0), |text| window::parse(text, NanoClock::system().now()));
    let since = since.map_err(|error| exit::usage(format!("--since: {error}")))?.div_ceil(SECOND_NS);
    let request = ListIssuancesRequest {
        spiffe_id: options.spiffe_id.clone().unwrap_or_default(),
        serial: options.serial.clone().unwrap_or_default(),
        since: i64::try_from(since).unwrap_or(i64::MAX),
        limit: options.limit,
    };
    let refused = |status: tonic::Status| options.admin.error(&status);
    let mut answers = options.admin.client().list_issuances(request).await.map_err(refused)?.into_inner();
    let mut all = Vec::new();
    while let Some(one) = answers.message().await.map_err(refused)? {
        all.push(one);
    }
    match options.output {
        Format::Table => print(&text(&all))?,
        Format::Json => print(&document(&all))?,
    };
    if u32::try_from(all.len()).is_ok_and(|count| count == options.limit) {
        eprintln!("the newest {}; there may be more: --limit, --since", options.limit);
    }
    Ok(Exit::Done)
}

fn unix(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or_default()
}

fn text(all: &[Issuance]) -> String {
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let head = ["ISSUED", "EXPIRES", "SPIFFE ID", "SERIAL", "ATTESTOR", "REASON", "ENTRY", "CALLER"];
    let mut rows = vec![head.map(str::to_owned)];
    for one in all {
        let (issued, expires) = (time(unix(one.issued_at)), time(unix(one.not_after)));
        let (id, serial, attestor) = (one.spiffe_id.clone(), one.serial.clone(), one.attestor.clone());
        let (entry, caller) = (or_none(&one.entry), or_none(&one.caller));
        rows.push([issued, expires, id, serial, attestor, one.reason.clone(), entry, caller]);
    }
    table::render(&rows)
}

fn document(all: &[Issuance]) -> String {
    let one = |one: &Issuance| {
        let [issued, from, to] = [one.issued_at, one.not_before, one.not_after].map(|at| time_or_null(unix(at)));
        json!({"serial": one.serial, "spiffeId": one.spiffe_id, "caller": one.caller, "attestor": one.attestor,
            "reason": one.reason, "entry": one.entry, "issuedAt": issued, "notBefore": from, "notAfter": to,
            "requestedTTLSeconds": one.requested_ttl, "shortened": one.shortened, "keySHA256": one.key_sha256,
            "authority": one.authority})
    };
    format!("{:#}\n", json!({"issued": all.iter().map(one).collect::<Vec<_>>()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Issuance; 2] {
        let web = Issuance {
            serial: "5f3a".into(),
            spiffe_id: "spiffe://cluster.local/ns/shop/sa/web".into(),
            caller: "10.0.0.7:4711".into(),
            attestor: "join-token".into(),
            reason: "enrolment".into(),
            issued_at: 1_800_000_000,
            not_before: 1_799_999_940,
            not_after: 1_800_003_600,
            requested_ttl: 7_200,
            shortened: true,
            key_sha256: "ab".into(),
            authority: "6f0c".into(),
            ..Issuance::default()
        };
        let cart = Issuance {
            serial: "41".into(),
            spiffe_id: "spiffe://cluster.local/cart".into(),
            caller: "spiffe://cluster.local/ns/shop/sa/node".into(),
            attestor: "agent".into(),
            reason: "entry".into(),
            entry: "shop/cart".into(),
            ..web.clone()
        };
        [cart, web]
    }

    /// `UPDATE_GOLDEN=1` writes the file anew: read it before it is committed.
    fn golden(name: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ca/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "run with UPDATE_GOLDEN=1 and read the difference");
    }

    #[test]
    fn people_and_programs_read_the_record() {
        golden("issued.txt", &text(&rows()));
        golden("issued.json", &document(&rows()));
    }
}
