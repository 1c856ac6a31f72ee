//! Certificates and the TLS listener, as the certificate authority and the binary would provide them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use palisade_control::DiscoveryServer;
use palisade_identity::tls::{self, ClientCertificate, ExpectPeer};
use palisade_identity::{
    Identity, PrivateKey, SpiffeId, TrustBundle, TrustBundles, TrustDomain, X509Svid, verify_peer,
};
use palisade_proxy::control_client::ChannelFactory;
use palisade_wire::channel;
use palisade_wire::serve::{self, Limits};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

const SERVER: &str = "spiffe://cluster.local/ns/palisade-system/sa/palisade";

/// A root that signs whatever a test asks for.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    bundles: Arc<TrustBundles>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).expect("root").der().clone();
        let domain = TrustDomain::parse("cluster.local").expect("trust domain");
        let mut bundles = TrustBundles::default();
        bundles.insert(TrustBundle::new(domain, vec![root]).expect("bundle"));
        Self { issuer: Issuer::new(params, key), bundles: Arc::new(bundles) }
    }

    /// An SVID of this ID, good for an hour.
    fn identity(&self, id: &str) -> Identity {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("URI"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = time::OffsetDateTime::now_utc() - Duration::from_secs(60);
        params.not_after = time::OffsetDateTime::now_utc() + Duration::from_secs(3600);
        let leaf: CertificateDer<'static> = params.signed_by(&key, &self.issuer).expect("leaf").der().clone();
        let key = PrivateKey::from_pkcs8_der(key.serialize_der()).expect("key");
        let svid = X509Svid::new(vec![leaf], key).expect("SVID");
        Identity { svid: Arc::new(svid), bundles: self.bundles.clone() }
    }

    /// Channels to the server as the holder of `id`, or as nobody.
    pub(crate) fn channels(&self, server: SocketAddr, id: Option<&str>) -> ChannelFactory {
        let identity = id.map(|id| self.identity(id));
        let bundles = self.bundles.clone();
        Arc::new(move || {
            let expect = ExpectPeer::Ids(vec![SpiffeId::parse(SERVER)?]);
            let config = tls::client_config(identity.as_ref(), bundles.clone(), expect, &[b"h2"])?;
            Ok(channel::tls(&server.to_string(), "localhost", Arc::new(config))?)
        })
    }
}

/// Mounts the service on a TLS listener; returns where it listens.
pub(crate) async fn serve(
    authority: &Authority,
    address: SocketAddr,
    service: DiscoveryServer,
    stop: CancellationToken,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.expect("bind");
    let address = listener.local_addr().expect("address");
    let identity = authority.identity(SERVER);
    let config = Arc::new(tls::server_config(&identity, ClientCertificate::Optional, &[b"h2"]).expect("TLS"));
    let bundles = authority.bundles.clone();
    let certificates =
        (move || config.clone(), move |chain: &[CertificateDer<'_>]| verify_peer(chain, &bundles, UnixTime::now()));
    let routes = Routes::new(service);
    let task = tokio::spawn(serve::tls(listener, Arc::new(certificates), routes, Limits::default(), stop));
    (address, task)
}
