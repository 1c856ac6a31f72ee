//! `palisade ca join-token`.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use palisade_wire::admin::CreateJoinTokenRequest;

use crate::admin::AdminOptions;
use crate::exit::{self, Exit};
use crate::output::print;

/// For whom.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The one identity the token can be turned into, such as spiffe://cluster.local/ns/shop/sa/web.
    #[arg(long, value_name = "SPIFFE_ID")]
    spiffe_id: String,
    /// How long the token can be used, such as 10m.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    ttl: String,
    #[command(flatten)]
    admin: AdminOptions,
}

pub(super) async fn run(options: &Options) -> Result<Exit> {
    let ttl = humantime::parse_duration(&options.ttl)
        .map_err(|error| exit::usage(format!("--ttl `{}`: {error}; write it like 10m or 1h", options.ttl)))?;
    let ttl_seconds = i64::try_from(ttl.as_secs()).ok().filter(|seconds| *seconds > 0);
    let ttl_seconds =
        ttl_seconds.ok_or_else(|| exit::usage(format!("--ttl `{}` must be a second or more", options.ttl)))?;
    let request = CreateJoinTokenRequest { spiffe_id: options.spiffe_id.clone(), ttl_seconds };
    let answer = options.admin.client().create_join_token(request).await;
    let answer = answer.map_err(|status| options.admin.error(&status))?.into_inner();
    print(&format!("{}\n", answer.token))?;
    let expires = UNIX_EPOCH + Duration::from_secs(u64::try_from(answer.expires_unix).unwrap_or(0));
    eprintln!("single use, for {}, until {}", options.spiffe_id, humantime::format_rfc3339_seconds(expires));
    Ok(Exit::Done)
}
