//! TLS with the server's own certificate on ports beside the main one: with a client certificate as a condition, or without.

use std::sync::{Arc, Mutex, PoisonError};

use palisade_ca::Authority;
use palisade_identity::tls::{self, ClientCertificate, TlsError};
use palisade_identity::{CertificateDer, Clock as _, Identity, UnixTime, VerifiedPeer, VerifyError};
use palisade_wire::serve::ServerTls;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::runtime::SystemClock;

/// The present certificate with these protocols; made anew when the certificate or whom it trusts is.
pub(super) struct OwnTls {
    authority: Arc<Authority>,
    protocols: &'static [&'static [u8]],
    /// Whether clients must show a certificate; otherwise they are not asked for one.
    mutual: bool,
    /// What the configuration was made for, and the configuration.
    made: Mutex<Option<(Arc<Identity>, Arc<ServerConfig>)>>,
}

impl OwnTls {
    /// Who shows no certificate does not get in.
    pub(super) fn mutual(authority: Arc<Authority>, protocols: &'static [&'static [u8]]) -> Self {
        Self { authority, protocols, mutual: true, made: Mutex::new(None) }
    }

    /// Nobody is asked who he is.
    pub(super) fn anonymous(authority: Arc<Authority>, protocols: &'static [&'static [u8]]) -> Self {
        Self { authority, protocols, mutual: false, made: Mutex::new(None) }
    }

    fn make(&self, identity: &Identity) -> Result<ServerConfig, TlsError> {
        match self.mutual {
            true => tls::server_config(identity, ClientCertificate::Required, self.protocols),
            false => tls::server_config_no_client_auth(identity, self.protocols),
        }
    }
}

impl ServerTls for OwnTls {
    fn config(&self) -> Arc<ServerConfig> {
        let identity = self.authority.server_identity();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*made
            && Arc::ptr_eq(of, &identity)
        {
            return Arc::clone(config);
        }
        match self.make(&identity) {
            Ok(mut config) => {
                config.time_provider = tls::time_provider(Arc::new(SystemClock));
                let config = Arc::new(config);
                *made = Some((identity, Arc::clone(&config)));
                config
            }
            Err(error) => {
                tracing::error!(error = crate::exit::chain(&error), "the renewed certificate cannot be served with");
                // Without a client certificate nobody passes `verify`, whichever configuration the handshake had.
                made.as_ref().map_or_else(|| self.authority.config(), |(_, config)| Arc::clone(config))
            }
        }
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> {
        self.authority.verify(chain)
    }

    fn now(&self) -> UnixTime {
        SystemClock.now()
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        ServerTls::changes(&*self.authority)
    }

    fn revokes(&self, peer: &VerifiedPeer) -> bool {
        self.authority.revokes(peer)
    }
}
