//! Mutual TLS on the authorization service's ports: the server's own certificate, and a client certificate as a condition.

use std::sync::{Arc, Mutex, PoisonError};

use palisade_ca::Authority;
use palisade_identity::tls::{self, ClientCertificate};
use palisade_identity::{CertificateDer, Clock as _, Identity, UnixTime, VerifiedPeer, VerifyError};
use palisade_wire::serve::ServerTls;
use rustls::ServerConfig;

use crate::runtime::SystemClock;

/// The present certificate with these protocols; made anew when the certificate or whom it trusts is.
pub(super) struct MutualTls {
    authority: Arc<Authority>,
    protocols: &'static [&'static [u8]],
    /// What the configuration was made for, and the configuration.
    made: Mutex<Option<(Arc<Identity>, Arc<ServerConfig>)>>,
}

impl MutualTls {
    pub(super) fn new(authority: Arc<Authority>, protocols: &'static [&'static [u8]]) -> Self {
        Self { authority, protocols, made: Mutex::new(None) }
    }
}

impl ServerTls for MutualTls {
    fn config(&self) -> Arc<ServerConfig> {
        let identity = self.authority.server_identity();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*made
            && Arc::ptr_eq(of, &identity)
        {
            return Arc::clone(config);
        }
        match tls::server_config(&identity, ClientCertificate::Required, self.protocols) {
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
}
