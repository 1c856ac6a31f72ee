//! The public keys for everybody: SPIFFE's bundle endpoint and OpenID Connect discovery.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use palisade_ca::{Authority, CaConfig, JwtConfig};
use palisade_wire::serve::{self, Limits, Page, Pages};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::mutual::OwnTls;
use crate::exit;
use crate::runtime::{self, Addresses, Supervisor};

const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8443);
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Tokens, and where their verifiers find the keys.
#[derive(Args, Debug)]
pub(super) struct TokenOptions {
    /// HTTPS for everybody, read only: /bundle (SPIFFE), /keys and /.well-known/openid-configuration; default: 0.0.0.0:8443, if it is free.
    #[arg(long, value_name = "ADDRESS", help_heading = "Tokens and bundle")]
    bundle_listen: Option<SocketAddr>,
    /// The `iss` of tokens, at which verifiers find that port, such as `https://palisade.example.org`; without it tokens carry none.
    #[arg(long, value_name = "URL", help_heading = "Tokens and bundle")]
    jwt_issuer: Option<String>,
    /// Lifetime of a token whose entry names none.
    #[arg(long, value_name = "DURATION", default_value = "5m", help_heading = "Tokens and bundle")]
    jwt_ttl: humantime::Duration,
    /// A key signs tokens for so long.
    #[arg(long, value_name = "DURATION", default_value = "1d", help_heading = "Tokens and bundle")]
    jwt_rotate_every: humantime::Duration,
    /// How often others should fetch the bundle; a new key is shown for five of these before it signs.
    #[arg(long, value_name = "DURATION", default_value = "5m", help_heading = "Tokens and bundle")]
    bundle_refresh_hint: humantime::Duration,
}

impl TokenOptions {
    /// `config` with these settings.
    pub(super) fn apply(&self, config: CaConfig) -> CaConfig {
        let ttl: Duration = self.jwt_ttl.into();
        let jwt = JwtConfig {
            ttl,
            max_ttl: config.jwt.max_ttl.max(ttl),
            rotate_every: self.jwt_rotate_every.into(),
            refresh_hint: self.bundle_refresh_hint.into(),
            issuer: self.jwt_issuer.clone(),
        };
        CaConfig { jwt, ..config }
    }

    /// Opens the port. One that nobody asked for and that is taken is left out with a warning: who happens to listen there must
    /// not keep the certificate authority from starting.
    pub(super) async fn open(&self) -> Result<Option<TcpListener>> {
        match (runtime::bind("the bundle (--bundle-listen)", self.bundle_listen.unwrap_or(DEFAULT)), self.bundle_listen)
        {
            (Ok(listener), _) => Ok(Some(listener)),
            (Err(error), Some(_)) => Err(exit::usage(format!("{error:#}"))),
            (Err(error), None) => {
                tracing::warn!(error = format!("{error:#}"), "the bundle is not served");
                Ok(None)
            }
        }
    }
}

/// Writes down where it listens.
pub(super) fn note(listener: Option<&TcpListener>, addresses: &mut Addresses) -> Result<()> {
    if let Some(listener) = listener {
        addresses.note("bundle", listener.local_addr()?);
    }
    Ok(())
}

/// Serves until `shutdown`.
pub(super) fn start(
    listener: Option<TcpListener>,
    authority: &Arc<Authority>,
    tasks: &mut Supervisor,
    shutdown: CancellationToken,
) {
    let Some(listener) = listener else { return };
    let tls = Arc::new(OwnTls::anonymous(Arc::clone(authority), PROTOCOLS));
    let shelf = Arc::new(Shelf(Arc::clone(authority)));
    let limits = Limits { max_connections: 1_024, ..Limits::default() };
    tasks.spawn_quiet("bundle", serve::pages(listener, tls, shelf, limits, shutdown));
}

/// The authority's documents by path.
struct Shelf(Arc<Authority>);

impl Pages for Shelf {
    fn page(&self, path: &str) -> Result<Page, &'static str> {
        let documents = self.0.documents();
        let body = match path {
            "/bundle" => &documents.bundle,
            "/keys" => &documents.keys,
            "/.well-known/openid-configuration" => {
                documents.discovery.as_ref().ok_or("no issuer is configured: start the server with --jwt-issuer")?
            }
            _ => return Err("here are /bundle, /keys and /.well-known/openid-configuration"),
        };
        let body = body.as_bytes().to_vec().into();
        Ok(Page { content_type: "application/json", max_age: u64::from(documents.refresh_hint), body })
    }
}
