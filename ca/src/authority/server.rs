//! The server's own certificate on its gRPC port: issued by itself, renewed at half its life and whenever the authorities change.
//!
//! While a root is replaced the server shows two ways from its leaf: the active authority's, and the same signer certified by
//! each old root. So an agent that missed the rotation still recognises the server, and a join token that names the old root works
//! as long as that root is in the bundle.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use palisade_identity::tls::{self, ClientCertificate, TlsError};
use palisade_identity::{
    Clock, IdError, Identity, KeyError, MAX_CHAIN_CERTIFICATES, PrivateKey, SpiffeId, SvidError, VerifiedPeer,
    VerifyError, X509Svid, verify_peer,
};
use palisade_policies::{SERVER_ACCOUNT, SERVER_DNS_NAMES};
use palisade_wire::serve::ServerTls;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use super::hands::Hands;
use super::issue::{RowFacts, SELF_ATTESTOR, row};
use super::{Authority, Realm};
use crate::config::CaConfig;
use crate::leaf::{self, LeafError, LeafSpec, Lifetimes};
use crate::signer::{Signer, SignerError, hex, sha256};
use crate::store::{Evidence, Store, StoreError};

/// Long enough to bridge a disk that takes no records for half a day, short enough to be no secret
/// worth stealing.
const LIFETIME: u64 = 24 * 3_600;
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
    /// What it was made of: it fits as long as these are in use.
    signer: Arc<Signer>,
    digest: String,
    pin: [u8; 32],
}

impl Serving {
    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// SHA-256 of the root that a new join token names.
    pub(super) fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// Half of its life has passed, or the clock says it has not begun.
    pub(super) fn due(&self, now: u64) -> bool {
        let begins = self.identity.svid.not_before().as_secs();
        let ends = self.identity.svid.not_after().as_secs();
        now < begins || now.saturating_sub(begins) >= ends.saturating_sub(begins) / 2
    }

    /// Whether the certificate is the active authority's, and shows every root of the bundle that it can.
    pub(super) fn fits(&self, realm: &Realm) -> bool {
        Arc::ptr_eq(&self.signer, &realm.signer) && self.digest == realm.digest
    }

    /// Whether clients are judged by what holds now.
    pub(super) fn trusts(&self, realm: &Realm) -> bool {
        Arc::ptr_eq(&self.identity.bundles, &realm.bundles)
    }

    /// The same certificate, with the judgement of clients that holds now.
    pub(super) fn with_trust(&self, realm: &Realm, clock: &Arc<dyn Clock>) -> Result<Self, ServerIdentityError> {
        let identity = Identity { svid: Arc::clone(&self.identity.svid), bundles: Arc::clone(&realm.bundles) };
        let (signer, digest) = (Arc::clone(&self.signer), self.digest.clone());
        Ok(Self { config: config(&identity, clock)?, identity: Arc::new(identity), signer, digest, pin: self.pin })
    }
}

fn config(identity: &Identity, clock: &Arc<dyn Clock>) -> Result<Arc<ServerConfig>, ServerIdentityError> {
    let mut config = tls::server_config(identity, ClientCertificate::Optional, ALPN)?;
    config.time_provider = tls::time_provider(Arc::clone(clock));
    Ok(Arc::new(config))
}

/// What a certificate for the server is made of.
pub(super) struct Parts<'a> {
    pub(super) config: &'a CaConfig,
    pub(super) realm: &'a Realm,
    /// Other ways to the same signer: the certificates, then the roots they lead to.
    pub(super) crosses: Vec<CertificateDer<'static>>,
}

/// The active signer certified by the old roots whose keys are at hand, as many as a chain has room for, newest first; and those
/// roots.
pub(super) fn crosses(realm: &Realm, hands: &Hands, now: u64) -> Vec<CertificateDer<'static>> {
    let room = MAX_CHAIN_CERTIFICATES.saturating_sub(realm.signer.chain.len() + 2) / 2;
    let old: Vec<_> = realm.journal.old().filter(|old| !old.tainted).collect();
    let roots = old.into_iter().rev().filter_map(|old| hands.members.get(&old.id)?.root.as_ref());
    let usable =
        roots.filter(|root| (root.not_before..root.not_after).contains(&now) && root.certificate != realm.anchor);
    let (mut crosses, mut anchors) = (Vec::new(), Vec::new());
    for root in usable.take(room) {
        if let Ok(cross) = root.certify(&realm.signer, now) {
            crosses.push(cross);
            anchors.push(root.certificate.clone());
        }
    }
    crosses.append(&mut anchors);
    crosses
}

/// What of an order is the server's alone, for nobody else to get: clients recognise it by its ID and names.
///
/// The names come from registration entries, which have no wildcards.
pub(super) fn reserved(config: &CaConfig, id: &SpiffeId, dns_names: &[String]) -> Option<String> {
    let own = id.trust_domain() == config.trust_domain && id.namespace_and_service_account() == Some(SERVER_ACCOUNT);
    if own {
        return Some(id.to_string());
    }
    let is_own = |name: &&String| own_names(config).any(|own| name.eq_ignore_ascii_case(own));
    dns_names.iter().find(is_own).cloned()
}

fn own_names(config: &CaConfig) -> impl Iterator<Item = &str> {
    SERVER_DNS_NAMES.into_iter().chain(config.dns_names.iter().map(String::as_str))
}

/// Issues and records a certificate for the server.
pub(super) async fn issue(
    parts: Parts<'_>,
    store: &Store,
    clock: &Arc<dyn Clock>,
) -> Result<Serving, ServerIdentityError> {
    let (now, realm) = (clock.now().as_secs(), parts.realm);
    let (namespace, account) = SERVER_ACCOUNT;
    let id = SpiffeId::workload(&parts.config.trust_domain, namespace, account)?;
    let dns_names: Vec<_> = own_names(parts.config).map(str::to_owned).collect();
    let lifetimes = Lifetimes { default: LIFETIME, maximum: LIFETIME };
    let dates = (realm.signer.not_before, realm.signer.not_after);
    let lifetime = lifetimes.dates(0, now, dates).ok_or(LeafError::SignerDates)?;
    let spec = LeafSpec { id: &id, dns_names: &dns_names, addresses: &ADDRESSES, lifetime };
    let key = PrivateKey::generate_p256()?;
    let leaf = leaf::issue(&spec, &key.public_key_der(), &realm.signer)?;
    let facts = RowFacts {
        caller: String::new(),
        attestor: SELF_ATTESTOR,
        requested_ttl: 0,
        key_sha256: hex(&sha256(&key.public_key_der())),
        entry: String::new(),
    };
    store.record(row(id.as_str(), &leaf, (now, &realm.authority), facts), Evidence::default()).await?;
    let mut chain = vec![leaf.certificate];
    chain.extend(realm.signer.chain.iter().cloned());
    chain.extend(parts.crosses);
    chain.push(realm.anchor.clone());
    let identity = Identity { svid: Arc::new(X509Svid::new(chain, key)?), bundles: Arc::clone(&realm.bundles) };
    Ok(Serving {
        config: config(&identity, clock)?,
        identity: Arc::new(identity),
        signer: Arc::clone(&realm.signer),
        digest: realm.digest.clone(),
        pin: sha256(&realm.anchor),
    })
}

/// For `palisade_wire::serve::tls`: always the present certificate, and the authority's own judgement
/// of clients.
impl ServerTls for Authority {
    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server.load().config)
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> {
        verify_peer(chain, &self.realm.load().bundles, self.clock.now())
    }

    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.changes.subscribe())
    }

    fn revokes(&self, peer: &VerifiedPeer) -> bool {
        self.realm.load().denies(peer.serial())
    }
}
