//! The names by which a real Envoy may ask: every one gives a working mTLS, and Envoy's SPIFFE validator, which three of them bring,
//! refuses another trust domain even where the root is the same.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use palisade_identity::{CertificateDer, Identity, PrivateKey, SvidSource, X509Svid};
use palisade_tests::poll_async;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use crate::envoy::{self, Envoy, Protocol};
use crate::mesh::{CART, FRONT, Mesh};
use crate::peer::{self, Upstream};

const FOREIGN: &str = "spiffe://b.test/ns/web/sa/front";

/// An authority of an organisation, under which there are several trust domains.
struct Organisation {
    root: CertifiedIssuer<'static, KeyPair>,
    cacerts: tempfile::TempDir,
}

impl Organisation {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "organisation");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (SystemTime::now() - Duration::from_secs(3_600)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(86_400)).into();
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("root");
        let cacerts = tempfile::tempdir().expect("directory");
        let (pem, key) = (root.pem(), root.key().serialize_pem());
        for (name, text) in
            [("ca-cert.pem", &pem), ("root-cert.pem", &pem), ("cert-chain.pem", &pem), ("ca-key.pem", &key)]
        {
            std::fs::write(cacerts.path().join(name), text).expect("write");
        }
        Self { root, cacerts }
    }

    /// A certificate of the same root in the trust domain `b.test`; `trust` is whom its holder trusts.
    fn foreigner(&self, trust: &Identity) -> Arc<Identity> {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(FOREIGN.try_into().expect("URI"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(3_600)).into();
        let leaf: CertificateDer<'static> = params.signed_by(&key, &self.root).expect("leaf").der().clone();
        let key = PrivateKey::from_pkcs8_der(key.serialize_der()).expect("key");
        let svid = X509Svid::new(vec![leaf], key).expect("SVID");
        Arc::new(Identity { svid: Arc::new(svid), bundles: trust.bundles.clone() })
    }
}

/// An identity that does not change.
struct Fixed(Arc<Identity>);

impl SvidSource for Fixed {
    fn current(&self) -> Option<Arc<Identity>> {
        Some(self.0.clone())
    }

    fn on_change(&self, _: Box<dyn Fn() + Send + Sync>) {}
}

/// Asks for these names, and leaves the judgement of names to what comes: no names are matched besides.
fn asking<'a>(certificate: &'a str, trust: &'a str) -> impl Fn(&mut Value) + use<'a> {
    move |bootstrap| {
        for pointer in [
            "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config/common_tls_context",
            "/static_resources/clusters/1/transport_socket/typed_config/common_tls_context",
        ] {
            let common = bootstrap.pointer_mut(pointer).expect("a TLS context");
            let sds = common.pointer("/tls_certificate_sds_secret_configs/0/sds_config").cloned();
            *common = json!({
                "tls_certificate_sds_secret_configs": [{ "name": certificate, "sds_config": sds }],
                "validation_context_sds_secret_config": { "name": trust, "sds_config": sds },
            });
        }
    }
}

/// One Envoy with these names: ours is let in and called; whether the foreigner of the same root is.
async fn judged(binary: &Path, protocol: Protocol, certificate: &str, trust: &str) -> (bool, bool) {
    let organisation = Organisation::new();
    let mesh = Mesh::start_under(Some(organisation.cacerts.path())).await;
    let (cart, front) = (mesh.agent(CART).await, mesh.agent(FRONT).await);
    let foreigner = organisation.foreigner(&front.identity());
    let ours = Upstream::start(front.handle.clone()).await;
    let theirs = Upstream::start(Fixed(foreigner.clone())).await;
    let start = |to| Envoy::start_with(binary, &cart.socket(), protocol, to, asking(certificate, trust));
    let (envoy, to_foreigner) = (start(ours.address), start(theirs.address));

    let serial = cart.identity().svid.serial().to_owned();
    let shown = peer::serial_shown_to(&front.identity(), envoy.mtls().await, CART).await;
    assert_eq!(shown.expect("a handshake"), serial, "{certificate} {trust}");
    // The cluster may open a moment after the listener.
    let called = poll_async("a call through Envoy", || async {
        let called = peer::ask_through(envoy.plain().await).await;
        called.as_ref().ok().filter(|called| !called.is_empty()).cloned().ok_or_else(|| format!("{called:?}"))
    })
    .await;
    assert_eq!(called, format!("{CART} {serial}"), "{certificate} {trust}");
    let inbound = peer::serial_shown_to(&foreigner, envoy.mtls().await, CART).await.is_ok();
    to_foreigner.mtls().await;
    let outbound = peer::ask_through(to_foreigner.plain().await).await.is_ok_and(|answer| !answer.is_empty());
    assert_eq!(envoy.stat(&format!("sds.{certificate}.update_rejected")), 0);

    for envoy in [envoy, to_foreigner] {
        envoy.stop();
    }
    for upstream in [ours, theirs] {
        upstream.stop().await;
    }
    for agent in [cart, front] {
        agent.stop().await;
    }
    mesh.stop().await;
    (inbound, outbound)
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_may_ask_for_an_identity_and_a_trust_domain_by_name() {
    let Some(binary) = envoy::binary("envoy_may_ask_for_an_identity_and_a_trust_domain_by_name") else { return };
    for protocol in [Protocol::Whole, Protocol::Delta] {
        assert_eq!(judged(&binary, protocol, CART, "spiffe://a.test").await, (false, false), "{protocol:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_may_ask_for_all_trust_domains_by_name() {
    let Some(binary) = envoy::binary("envoy_may_ask_for_all_trust_domains_by_name") else { return };
    for protocol in [Protocol::Whole, Protocol::Delta] {
        assert_eq!(judged(&binary, protocol, "default", "ALL").await, (false, false), "{protocol:?}");
    }
}

/// `ROOTCA` is roots and nothing else: who asks for it matches the names himself. Without that, the foreigner gets in, which shows
/// that it was the SPIFFE validator that kept it out elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn envoy_judges_no_trust_domain_with_the_bare_roots() {
    let Some(binary) = envoy::binary("envoy_judges_no_trust_domain_with_the_bare_roots") else { return };
    assert_eq!(judged(&binary, Protocol::Whole, CART, "ROOTCA").await, (true, true));
}
