//! Configurations from text and callers with real certificates, for this crate's tests.

use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{TrustBundle, TrustBundles, TrustDomain, verify_peer};
use palisade_watch::{Configuration, Directory, DirectoryConfig};
use palisade_wire::Caller;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::index::Index;

pub(crate) const WORKLOADS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-0, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: cart}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-1, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: cart}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: front-0, namespace: web}
spec: {address: 127.0.0.1}
";

/// A policy that allows nothing, named `name`, in `namespace`.
pub(crate) fn policy(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{}}\n"
    )
}

/// The good configuration made of these files.
pub(crate) fn configuration(files: &[(&str, &str)]) -> Arc<Configuration> {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("write");
    }
    let directory = Directory::open(DirectoryConfig::new(dir.path()));
    let state = directory.subscribe().borrow().clone();
    state.good.unwrap_or_else(|| panic!("refused: {}", state.problem.expect("a problem")))
}

pub(crate) fn index(files: &[(&str, &str)]) -> Index {
    Index::new(configuration(files))
}

/// A caller whose certificate carries `spiffe_id`, signed by an authority of `trust_domain`.
pub(crate) fn caller(trust_domain: &str, spiffe_id: &str) -> Caller {
    let (ca_key, leaf_key) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "test authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = ca.self_signed(&ca_key).expect("root");
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().expect("URI"))];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.not_after = time::OffsetDateTime::now_utc() + Duration::from_secs(3600);
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key)).expect("leaf");
    let domain = TrustDomain::parse(trust_domain).expect("trust domain");
    let bundle = TrustBundle::new(domain, vec![root.der().clone()]).expect("bundle");
    let mut bundles = TrustBundles::default();
    bundles.insert(bundle);
    let chain: [CertificateDer<'_>; 1] = [leaf.der().clone()];
    let peer = verify_peer(&chain, &bundles, UnixTime::now()).expect("peer");
    Caller { peer: Some(Arc::new(peer)), ..Default::default() }
}
