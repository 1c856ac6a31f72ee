//! The server's own certificate on its gRPC port: issued by itself, renewed at half its life.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use palisade_identity::tls::{self, ClientCertificate, TlsError};
use palisade_identity::{
    Clock, IdError, Identity, KeyError, PrivateKey, SpiffeId, SvidError, TrustBundles, VerifiedPeer, VerifyError,
    X509Svid, verify_peer,
};
use palisade_wire::serve::ServerTls;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Authority, RowFacts, row};
use crate::config::CaConfig;
use crate::leaf::{self, LeafError, LeafSpec, Lifetimes};
use crate::signer::{Signer, SignerError, hex, sha256};
use crate::store::{Store, StoreError};

/// Long enough to bridge a disk that takes no records for half a day, short enough to be no secret
/// worth stealing.
const LIFETIME: u64 = 24 * 3_600;
const NAMESPACE: &str = "palisade-system";
const SERVICE_ACCOUNT: &str = "palisade";
/// Where clients expect the server: on this machine, and under Istio's and our own service names.
const DNS_NAMES: [&str; 3] = ["localhost", "istiod.istio-system.svc", "palisade.palisade-system.svc"];
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const ALPN: &[&[u8]] = &[b"h2"];

/// Why the server has no certificate of its own.
#[derive(Debug, thiserror::Error)]
pub enum ServerIdentityError {
    /// Its ID.
    #[error("the server's ID is not valid")]
    Id(#[from] IdError),
    /// Its key.
    #[error("the server's key cannot be made")]
    Key(#[from] KeyError),
    /// Randomness or a library.
    #[error("the server's certificate cannot be made")]
    Signer(#[from] SignerError),
    /// The intermediate is not valid now, or what it signed does not verify.
    #[error("the server's certificate cannot be issued: {0}")]
    Leaf(String),
    /// The record.
    #[error("the issuance cannot be recorded")]
    Store(#[from] StoreError),
    /// The SVID rules.
    #[error("the server's certificate is not a valid SVID")]
    Svid(#[from] SvidError),
    /// The TLS configuration.
    #[error("the TLS configuration cannot be made")]
    Tls(#[from] TlsError),
}

impl From<LeafError> for ServerIdentityError {
    fn from(error: LeafError) -> Self {
        Self::Leaf(error.to_string())
    }
}

/// What the server serves with, replaced as a whole.
#[derive(Debug)]
pub(super) struct Serving {
    identity: Arc<Identity>,
    config: Arc<ServerConfig>,
}

impl Serving {
    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// Half of its life has passed, or the clock says it has not begun.
    pub(super) fn due(&self, now: u64) -> bool {
        let begins = self.identity.svid.not_before().as_secs();
        let ends = self.identity.svid.not_after().as_secs();
        now < begins || now.saturating_sub(begins) >= ends.saturating_sub(begins) / 2
    }
}

/// What a certificate for the server is made of.
pub(super) struct Parts<'a> {
    pub(super) config: &'a CaConfig,
    pub(super) root: &'a Signer,
    pub(super) signer: &'a Signer,
    pub(super) bundles: &'a Arc<TrustBundles>,
}

/// Issues and records a certificate for the server.
pub(super) async fn issue(
    parts: &Parts<'_>,
    store: &Store,
    clock: &Arc<dyn Clock>,
) -> Result<Serving, ServerIdentityError> {
    let now = clock.now().as_secs();
    let id = SpiffeId::workload(&parts.config.trust_domain, NAMESPACE, SERVICE_ACCOUNT)?;
    let dns_names: Vec<_> =
        DNS_NAMES.iter().map(|name| (*name).to_owned()).chain(parts.config.dns_names.iter().cloned()).collect();
    let lifetimes = Lifetimes { default: LIFETIME, maximum: LIFETIME };
    let dates = (parts.signer.not_before, parts.signer.not_after);
    let lifetime = lifetimes.dates(0, now, dates).ok_or(LeafError::SignerDates)?;
    let spec = LeafSpec { id: &id, dns_names: &dns_names, addresses: &ADDRESSES, lifetime };
    let key =
        KeyPair::generate().map_err(|error| SignerError::Make { what: "server key", reason: error.to_string() })?;
    let leaf = leaf::issue(&spec, &key, parts.signer, parts.bundles)?;
    let facts = RowFacts {
        caller: String::new(),
        attestor: "self",
        requested_ttl: 0,
        key_sha256: hex(&sha256(&key.subject_public_key_info())),
    };
    store.record(row(&id, &leaf, now, facts), None).await?;
    let chain = vec![leaf.certificate, parts.signer.certificate().clone(), parts.root.certificate().clone()];
    let svid = X509Svid::new(chain, PrivateKey::from_pkcs8_der(key.serialize_der())?)?;
    let identity = Identity { svid: Arc::new(svid), bundles: Arc::clone(parts.bundles) };
    let mut config = tls::server_config(&identity, ClientCertificate::Optional, ALPN)?;
    config.time_provider = tls::time_provider(Arc::clone(clock));
    Ok(Serving { identity: Arc::new(identity), config: Arc::new(config) })
}

/// For `palisade_wire::serve::tls`: always the present certificate, and the authority's own judgement
/// of clients.
impl ServerTls for Authority {
    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server.load().config)
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> {
        verify_peer(chain, &self.bundles, self.clock.now())
    }

    fn now(&self) -> UnixTime {
        self.clock.now()
    }
}
