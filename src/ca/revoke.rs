//! `palisade ca revoke|revoked`.

use anyhow::Result;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use palisade_wire::admin::{ListRevokedCertificatesRequest, RevokeCertificatesRequest, RevokedCertificates};
use serde_json::json;

use super::table::{self, Format, time, time_or_null};
use crate::admin::AdminOptions;
use crate::exit::Exit;
use crate::output::print;

/// Which certificates.
#[derive(Args, Debug)]
pub(crate) struct RevokeOptions {
    #[command(flatten)]
    target: Target,
    /// Why; kept with the revocation.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    shown: RevokedOptions,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Target {
    /// All certificates of this identity that have not expired.
    #[arg(long, value_name = "SPIFFE_ID", value_parser = NonEmptyStringValueParser::new())]
    spiffe_id: Option<String>,
    /// The one with this serial number.
    #[arg(long, value_name = "HEX", value_parser = NonEmptyStringValueParser::new())]
    serial: Option<String>,
}

/// How to show them.
#[derive(Args, Debug)]
pub(crate) struct RevokedOptions {
    #[command(flatten)]
    admin: AdminOptions,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

pub(super) async fn revoke(options: &RevokeOptions) -> Result<Exit> {
    let request = RevokeCertificatesRequest {
        spiffe_id: options.target.spiffe_id.clone().unwrap_or_default(),
        serial: options.target.serial.clone().unwrap_or_default(),
        reason: options.reason.clone(),
    };
    let admin = &options.shown.admin;
    let answer = admin.client().revoke_certificates(request).await.map_err(|status| admin.error(&status))?.into_inner();
    show(options.shown.output, &answer)?;
    eprintln!("{} certificate(s) revoked", answer.certificates.len());
    Ok(Exit::Done)
}

pub(super) async fn revoked(options: &RevokedOptions) -> Result<Exit> {
    let answer = options.admin.client().list_revoked_certificates(ListRevokedCertificatesRequest {}).await;
    show(options.output, &answer.map_err(|status| options.admin.error(&status))?.into_inner())?;
    Ok(Exit::Done)
}

fn show(format: Format, all: &RevokedCertificates) -> Result<bool> {
    let unix = |seconds: i64| u64::try_from(seconds).unwrap_or_default();
    if format == Format::Json {
        let one = |one: &palisade_wire::admin::RevokedCertificate| {
            json!({"serial": one.serial, "spiffeId": one.spiffe_id, "notAfter": time_or_null(unix(one.not_after)),
                "reason": one.reason, "revokedAt": time_or_null(unix(one.revoked_at))})
        };
        let all: Vec<_> = all.certificates.iter().map(one).collect();
        return print(&format!("{:#}\n", json!({"revoked": all})));
    }
    let mut rows = vec![["SERIAL", "SPIFFE ID", "REVOKED", "EXPIRES", "REASON"].map(str::to_owned)];
    for one in &all.certificates {
        let (revoked, expires) = (time(unix(one.revoked_at)), time(unix(one.not_after)));
        rows.push([one.serial.clone(), one.spiffe_id.clone(), revoked, expires, one.reason.clone()]);
    }
    print(&table::render(&rows))
}
