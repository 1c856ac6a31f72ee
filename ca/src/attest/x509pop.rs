//! X.509 proof of possession: a machine shows a certificate that an authority of the operator has given it.
//!
//! The proof is the TLS handshake itself: the machine presents its certificate as the client's, and signs the handshake with its
//! key. No message of ours has to carry a challenge, and nothing can be replayed. A chain of such an authority is let into
//! the port beside the trust domain's own ([`WithMachines`]); it is nobody to every other service there, and this attestor judges
//! it again with each request.

use std::sync::{Arc, Mutex, PoisonError};

use der::Decode;
use palisade_identity::tls::{self, ClientJudge, TlsError};
use palisade_identity::{CertificateDer, Identity, SpiffeId, TrustDomain, UnixTime, VerifiedPeer, VerifyError};
use palisade_wire::serve::ServerTls;
use rustls::ServerConfig;
use rustls_pki_types::TrustAnchor;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;

use super::{Attestation, Attested, Attestor, Evidence, Refusal};
use crate::authority::Authority;
use crate::signer::{hex, sha256};

const NAME: &str = "x509pop";
/// A leaf and its intermediates.
const MAX_CHAIN: usize = 6;
const ALPN: &[&[u8]] = &[b"h2"];
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Why a file of authorities is not used.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    /// Not PEM.
    #[error("it is not PEM: {0}")]
    Pem(String),
    /// Nothing in it.
    #[error("it holds no certificate")]
    Empty,
    /// A certificate that is no trust anchor.
    #[error("certificate {0} in it cannot be a trust anchor")]
    Anchor(usize),
}

/// The authorities whose certificates prove a machine.
#[derive(Debug)]
pub struct Machines {
    anchors: Vec<TrustAnchor<'static>>,
}

impl Machines {
    /// Reads PEM certificates.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, MachinesError> {
        let mut anchors = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(text).enumerate() {
            let certificate = certificate.map_err(|error| MachinesError::Pem(error.to_string()))?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate);
            anchors.push(anchor.map_err(|_| MachinesError::Anchor(index + 1))?.to_owned());
        }
        if anchors.is_empty() { Err(MachinesError::Empty) } else { Ok(Self { anchors }) }
    }

    /// Whether the chain, leaf first, is of one of the authorities and for clients, now; else a stable reason.
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), &'static str> {
        let (leaf, intermediates) = chain.split_first().ok_or("machine-certificate-missing")?;
        if chain.len() > MAX_CHAIN {
            return Err("machine-chain-too-long");
        }
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| "machine-certificate-malformed")?;
        let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, KeyUsage::client_auth());
        let verified = leaf.verify_for_usage(algorithms, &self.anchors, intermediates, now, usage, None, None);
        verified.map_err(|error| match error {
            webpki::Error::CertExpired { .. } => "machine-certificate-expired",
            webpki::Error::CertNotValidYet { .. } => "machine-certificate-not-yet-valid",
            _ => "machine-certificate-not-trusted",
        })?;
        // Whoever has an ID is judged by the trust bundles alone: what they refuse must not come in as a machine.
        if leaf.valid_uri_names().any(|uri| uri.starts_with("spiffe:")) {
            return Err("machine-certificate-with-id");
        }
        Ok(())
    }
}

/// Attests by the machine's certificate of the connection: the ID is `spiffe://<domain>/agent/x509pop/<SHA-256 of the
/// certificate in hex>`.
#[derive(Debug)]
pub struct X509Pop {
    domain: TrustDomain,
    machines: Arc<Machines>,
}

impl X509Pop {
    /// Attests IDs of `domain`.
    #[must_use]
    pub fn new(domain: TrustDomain, machines: Arc<Machines>) -> Self {
        Self { domain, machines }
    }

    fn judge(&self, evidence: Evidence<'_>) -> Result<Option<Attested>, Refusal> {
        let Some(chain) = evidence.caller.stranger.as_deref() else { return Ok(None) };
        let refuse = |code| Refusal::Evidence { attestor: NAME, code };
        // The connection may be older than the certificate had left.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(evidence.now));
        self.machines.verify(chain, now).map_err(refuse)?;
        let leaf = chain.first().ok_or_else(|| refuse("machine-certificate-missing"))?;
        let fingerprint = hex(&sha256(leaf));
        let id = SpiffeId::parse(&format!("{}/agent/x509pop/{fingerprint}", self.domain.id()));
        let id = id.map_err(|_| refuse("machine-certificate-malformed"))?;
        Ok(Some(Attested { selectors: selectors(leaf, &fingerprint), ..Attested::new(id, NAME) }))
    }
}

impl Attestor for X509Pop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attest<'a>(&'a self, evidence: Evidence<'a>) -> Attestation<'a> {
        Box::pin(std::future::ready(self.judge(evidence)))
    }
}

/// The fingerprint, and the subject's common name if it has exactly one.
fn selectors(leaf: &CertificateDer<'_>, fingerprint: &str) -> Vec<String> {
    let mut selectors = vec![format!("x509pop:fingerprint:{fingerprint}")];
    let Ok(certificate) = Certificate::from_der(leaf) else { return selectors };
    let subject = certificate.tbs_certificate().subject();
    let mut names = subject.iter_rdn().flat_map(|rdn| rdn.iter()).filter(|name| name.oid == COMMON_NAME);
    if let (Some(name), None) = (names.next(), names.next())
        && let Ok(name) = std::str::from_utf8(name.value.value())
        && !name.chars().any(char::is_control)
    {
        selectors.push(format!("x509pop:subject:cn:{name}"));
    }
    selectors
}

/// For `palisade_wire::serve::tls`: the authority's own judgement, and machines let in besides.
#[derive(Debug)]
pub struct WithMachines {
    door: Arc<Door>,
    /// What the configuration was made for, and the configuration.
    made: Mutex<Option<(Arc<Identity>, Arc<ServerConfig>)>>,
}

#[derive(Debug)]
struct Door {
    authority: Arc<Authority>,
    machines: Arc<Machines>,
}

impl WithMachines {
    /// Lets machines into the port of `authority`.
    #[must_use]
    pub fn new(authority: Arc<Authority>, machines: Arc<Machines>) -> Self {
        Self { door: Arc::new(Door { authority, machines }), made: Mutex::default() }
    }

    fn make(&self, identity: &Identity) -> Result<ServerConfig, TlsError> {
        let mut config = tls::server_config_judged(identity, Arc::clone(&self.door) as Arc<dyn ClientJudge>, ALPN)?;
        config.time_provider = Arc::clone(&ServerTls::config(&*self.door.authority).time_provider);
        Ok(config)
    }
}

impl ClientJudge for Door {
    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), VerifyError> {
        match self.authority.verify(chain) {
            Err(_) if self.machines.verify(chain, now).is_ok() => Ok(()),
            judged => judged.map(|_| ()),
        }
    }
}

impl ServerTls for WithMachines {
    fn config(&self) -> Arc<ServerConfig> {
        let identity = self.door.authority.server_identity();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*made
            && Arc::ptr_eq(of, &identity)
        {
            return Arc::clone(config);
        }
        match self.make(&identity) {
            Ok(config) => {
                let config = Arc::new(config);
                *made = Some((identity, Arc::clone(&config)));
                config
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "machines are not let in: the TLS configuration cannot be made");
                ServerTls::config(&*self.door.authority)
            }
        }
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> {
        self.door.authority.verify(chain)
    }

    fn admits(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.door.machines.verify(chain, self.now()).is_ok()
    }

    fn now(&self) -> UnixTime {
        ServerTls::now(&*self.door.authority)
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        ServerTls::changes(&*self.door.authority)
    }

    fn revokes(&self, peer: &VerifiedPeer) -> bool {
        self.door.authority.revokes(peer)
    }
}
