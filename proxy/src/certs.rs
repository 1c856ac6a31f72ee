//! Our certificate as TLS configurations, built once for each certificate and shared by all connections.
//!
//! A rotation is a new epoch: new connections use it, pooled ones of older epochs are not used again, and nothing that
//! is under way is cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use palisade_identity::tls::{self, ClientCertificate, ExpectPeer};
use palisade_identity::{Identity, SpiffeId, SvidSource};

/// What TLS was negotiated to carry (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// `istio-http/1.1`
    IstioHttp1,
    /// `istio-h2`
    IstioH2,
    /// `istio`: bytes
    Istio,
    /// `h2`
    H2,
    /// `http/1.1`
    Http1,
    /// Nothing we know.
    None,
}

impl Alpn {
    const ALL: [Alpn; 6] = [Alpn::IstioHttp1, Alpn::IstioH2, Alpn::Istio, Alpn::H2, Alpn::Http1, Alpn::None];

    /// The protocol id; nothing for [`Alpn::None`].
    pub(crate) const fn id(self) -> &'static [u8] {
        match self {
            Alpn::IstioHttp1 => b"istio-http/1.1",
            Alpn::IstioH2 => b"istio-h2",
            Alpn::Istio => b"istio",
            Alpn::H2 => b"h2",
            Alpn::Http1 => b"http/1.1",
            Alpn::None => b"",
        }
    }

    /// Picks what to speak from the client's offers, mesh names first. `istio-peer-exchange` is never chosen: it would
    /// oblige both sides to a preface.
    pub(crate) fn choose<'a>(offers: impl Iterator<Item = &'a [u8]> + Clone) -> Alpn {
        let named = |alpn: &Alpn| *alpn != Alpn::None && offers.clone().any(|offer| offer == alpn.id());
        Alpn::ALL.into_iter().find(named).unwrap_or(Alpn::None)
    }

    /// The client says by it that this TLS is the mesh's own.
    pub(crate) const fn is_mesh(self) -> bool {
        matches!(self, Alpn::IstioHttp1 | Alpn::IstioH2 | Alpn::Istio)
    }

    /// HTTP between two proxies of a mesh.
    pub(crate) const fn is_mesh_http(self) -> bool {
        matches!(self, Alpn::IstioHttp1 | Alpn::IstioH2)
    }
}

/// One certificate and everything made of it.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// Grows with every change of certificate or trust.
    pub(crate) number: u64,
    pub(crate) identity: Arc<Identity>,
    /// Our ID without `spiffe://`.
    pub(crate) principal: Arc<str>,
    servers: [(Alpn, Arc<rustls::ServerConfig>); Alpn::ALL.len()],
}

impl Epoch {
    fn new(number: u64, identity: Arc<Identity>) -> Result<Epoch, tls::TlsError> {
        let base = tls::server_config(&identity, ClientCertificate::Required, &[])?;
        let servers = Alpn::ALL.map(|alpn| {
            let mut config = base.clone();
            if alpn != Alpn::None {
                config.alpn_protocols = vec![alpn.id().to_vec()];
            }
            (alpn, Arc::new(config))
        });
        let principal = identity.svid.id().principal().into();
        Ok(Epoch { number, identity, principal, servers })
    }

    /// The configuration that answers with that protocol.
    pub(crate) fn server(&self, alpn: Alpn) -> Option<Arc<rustls::ServerConfig>> {
        self.servers.iter().find(|(of, _)| *of == alpn).map(|(_, config)| config.clone())
    }

    /// A configuration to call exactly that peer.
    pub(crate) fn client(&self, peer: &SpiffeId, alpn: Alpn) -> Result<Arc<rustls::ClientConfig>, tls::TlsError> {
        let offers: &[&[u8]] = match alpn {
            // What an Istio sidecar offers, so that one answers as it would to its like.
            Alpn::IstioHttp1 => &[b"istio-http/1.1", b"istio", b"http/1.1"],
            Alpn::IstioH2 => &[b"istio-h2", b"istio", b"h2"],
            Alpn::Istio => &[b"istio"],
            Alpn::H2 => &[b"h2"],
            Alpn::Http1 => &[b"http/1.1"],
            Alpn::None => &[],
        };
        let expected = ExpectPeer::Ids(vec![peer.clone()]);
        tls::client_config(Some(&self.identity), self.identity.bundles.clone(), expected, offers).map(Arc::new)
    }
}

/// The newest epoch.
pub(crate) struct Certs {
    source: Arc<dyn SvidSource>,
    current: ArcSwapOption<Epoch>,
    numbers: AtomicU64,
}

impl std::fmt::Debug for Certs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certs").field("epoch", &self.numbers.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

impl Certs {
    pub(crate) fn new(source: Arc<dyn SvidSource>) -> Certs {
        let certs = Certs { source, current: ArcSwapOption::empty(), numbers: AtomicU64::new(0) };
        certs.refresh();
        certs
    }

    /// The source, for subscribing to changes.
    pub(crate) fn source(&self) -> &Arc<dyn SvidSource> {
        &self.source
    }

    /// Takes what the source has now. An identity that makes no TLS configuration is named and left out: the one in use
    /// stays.
    pub(crate) fn refresh(&self) {
        let Some(identity) = self.source.current() else { return };
        if self.current.load().as_ref().is_some_and(|epoch| Arc::ptr_eq(&epoch.identity, &identity)) {
            return;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        match Epoch::new(number, identity) {
            Ok(epoch) => {
                tracing::info!(
                    serial = epoch.identity.svid.serial(),
                    id = epoch.identity.svid.id().as_str(),
                    "certificate in use"
                );
                self.current.store(Some(Arc::new(epoch)));
            }
            Err(error) => tracing::error!(%error, "certificate cannot be used, the one in use stays"),
        }
    }

    /// The epoch in use; none before the first certificate.
    pub(crate) fn current(&self) -> Option<Arc<Epoch>> {
        self.current.load_full()
    }

    /// Number of the epoch in use, 0 before the first certificate.
    pub(crate) fn number(&self) -> u64 {
        self.current.load().as_ref().map_or(0, |epoch| epoch.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mesh_names_win_and_peer_exchange_is_never_chosen() {
        let choose = |offers: &[&'static [u8]]| Alpn::choose(offers.iter().copied());
        assert_eq!(choose(&[b"http/1.1", b"istio", b"istio-http/1.1"]), Alpn::IstioHttp1);
        assert_eq!(choose(&[b"istio-peer-exchange", b"istio"]), Alpn::Istio);
        assert_eq!(choose(&[b"istio-peer-exchange"]), Alpn::None);
        assert_eq!(choose(&[b"h2", b"http/1.1"]), Alpn::H2);
        assert_eq!(choose(&[]), Alpn::None);
    }
}
