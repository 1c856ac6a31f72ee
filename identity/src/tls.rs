//! TLS configurations for every connection of the mesh.
//!
//! Each is built with the aws-lc-rs provider passed explicitly, so that no other crate's choice of a process-wide default can change
//! what a handshake accepts. TLS 1.3 is preferred and 1.2 the least, `X25519MLKEM768` comes first. There are no tickets, no
//! sessions and no early data on either side: a resumed session skips certificate verification, and a peer with an expired
//! certificate would come back in by it.
//!
//! A configuration is a snapshot of one [`Identity`]: after a rotation build a new one. Open connections are not touched.
//!
//! When a handshake fails because of a certificate, the peer gets the alert `certificate_unknown` (what exactly was wrong is not
//! its business), and the typed reason is inside the [`rustls::Error`]: see [`verify_error`] and [`verify_error_in_io`].

mod client;
mod pinned;
mod server;

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, CipherSuite, CommonState, OtherError};
use rustls_pki_types::UnixTime;
use thiserror::Error;

pub use client::{ExpectPeer, client_config, client_config_named};
pub use pinned::client_config_pinned;
pub use server::{ClientCertificate, ClientJudge, server_config, server_config_judged, server_config_no_client_auth};

use crate::{Clock, Identity, TrustBundles, VerifiedPeer, VerifyError, verify_peer};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let all = aws_lc_rs::default_provider();
    // Stable: the others keep their order.
    let mut cipher_suites = all.cipher_suites.clone();
    cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(CryptoProvider {
        cipher_suites,
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..all
    })
});

/// The one crypto provider of every configuration: aws-lc-rs, with the hybrid post-quantum key exchange first, and
/// `TLS_AES_128_GCM_SHA256` before `TLS_AES_256_GCM_SHA384`, as Envoy and Go have it: with P-256 certificates the longer key adds no
/// strength, and SHA-384 makes the key schedule of a handshake several times as dear.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// Why no TLS configuration could be built.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The TLS library refused its settings.
    #[error("the TLS library refuses the settings")]
    Settings(#[source] rustls::Error),
    /// An ALPN protocol name is empty or longer than 255 bytes.
    #[error("an ALPN protocol name has 1 to 255 bytes, `{0}` has not")]
    Alpn(String),
    /// A list of expected peers that nobody can be on.
    #[error("no peer is expected, so none could be accepted")]
    NobodyExpected,
}

/// The peer behind a finished handshake, verified again at `now`: for connections that outlive a change of bundles, and to get at
/// the [`VerifiedPeer`] once the handshake is done. With the bundles that the handshake used it costs a hash of the chain. A [`rustls::Connection`] and both its kinds deref to [`CommonState`].
///
/// # Errors
/// [`VerifyError::NoCertificate`] if the peer showed none, or the reason why it would now be refused.
pub fn peer(connection: &CommonState, bundles: &TrustBundles, now: UnixTime) -> Result<VerifiedPeer, VerifyError> {
    verify_peer(connection.peer_certificates().unwrap_or_default(), bundles, now)
}

/// The reason of this crate inside a TLS error, if that is why the handshake failed.
///
/// A client that had to show a certificate and did not counts as [`VerifyError::NoCertificate`]. Names and dates checked by
/// [`client_config_named`] and [`client_config_pinned`] are rustls' own errors, and alerts sent by the peer are not ours:
/// `None` for them.
#[must_use]
pub fn verify_error(error: &rustls::Error) -> Option<&VerifyError> {
    match error {
        rustls::Error::NoCertificatesPresented => Some(&VerifyError::NoCertificate),
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

/// As [`verify_error`], for the [`io::Error`] in which asynchronous wrappers such as tokio-rustls hand out a TLS error.
#[must_use]
pub fn verify_error_in_io(error: &io::Error) -> Option<&VerifyError> {
    verify_error(error.get_ref()?.downcast_ref()?)
}

/// Lets a configuration take its time from a [`Clock`]: `config.time_provider = time_provider(clock)`. Without it rustls reads
/// the system's clock.
#[must_use]
pub fn time_provider(clock: Arc<dyn Clock>) -> Arc<dyn TimeProvider> {
    Arc::new(ClockTime(clock))
}

#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0.now())
    }
}

fn refuse(reason: VerifyError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

fn certified_key(identity: &Identity) -> Arc<SingleCertAndKey> {
    let svid = &identity.svid;
    Arc::new(CertifiedKey::new(svid.chain().to_vec(), svid.key().signer()).into())
}

fn alpn_protocols(names: &[&[u8]]) -> Result<Vec<Vec<u8>>, TlsError> {
    let own = |name: &&[u8]| match name.len() {
        1..=255 => Ok(name.to_vec()),
        _ => Err(TlsError::Alpn(String::from_utf8_lossy(name).into_owned())),
    };
    names.iter().map(own).collect()
}

/// The part of a rustls verifier that is the same for all of ours: handshake signatures by the provider's algorithms.
macro_rules! signatures_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &super::PROVIDER.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &super::PROVIDER.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            super::PROVIDER.signature_verification_algorithms.supported_schemes()
        }
    };
}
use signatures_by_provider;
