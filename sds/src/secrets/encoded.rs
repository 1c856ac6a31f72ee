//! The wire forms of one identity.

use std::collections::HashMap;

use aws_lc_rs::digest;
use palisade_identity::{Identity, TrustBundle};
use palisade_wire::SECRET_TYPE_URL;
use palisade_wire::envoy::envoy::config::core::v3::{DataSource, data_source::Specifier};
use palisade_wire::envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};
use palisade_wire::envoy::google::protobuf::Any;
use palisade_wire::workload::{X509BundlesResponse, X509svid, X509svidResponse};
use prost::Message;

use super::{CERTIFICATE_NAME, ROOTS_NAME};

/// Every form in which one identity is served.
pub(crate) struct Encoded {
    /// SDS `default`.
    pub(crate) certificate: Resource,
    /// SDS `ROOTCA`.
    pub(crate) roots: Resource,
    /// Answer of `FetchX509SVID`.
    pub(crate) svids: X509svidResponse,
    /// Answer of `FetchX509Bundles`.
    pub(crate) bundles: X509BundlesResponse,
    /// Changes when and only when a bundle does.
    pub(crate) bundles_version: String,
}

/// One SDS secret.
#[derive(Clone)]
pub(crate) struct Resource {
    /// The name it is asked by, and carries.
    pub(crate) name: &'static str,
    /// Hash of the content: it changes when and only when the content does.
    pub(crate) version: String,
    /// The packed secret. Holds the private key.
    pub(crate) secret: Any,
}

impl Encoded {
    pub(crate) fn new(identity: &Identity) -> Self {
        let svid = &identity.svid;
        let own = identity.bundles.get(svid.id().trust_domain_name());
        let roots_pem = own.map(TrustBundle::to_pem).unwrap_or_default();
        Self {
            certificate: certificate(identity),
            roots: roots(&roots_pem),
            svids: svids(identity, own),
            bundles: X509BundlesResponse { crl: Vec::new(), bundles: bundle_map(identity, None) },
            bundles_version: bundles_version(identity),
        }
    }
}

fn certificate(identity: &Identity) -> Resource {
    let chain = identity.svid.chain_pem();
    // The leaf names its key, so the chain alone tells one content from another and no hash of a key is published.
    let version = version_of(&[chain.as_bytes()]);
    let secret = Secret {
        name: CERTIFICATE_NAME.to_owned(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(chain.into_bytes())),
            private_key: Some(inline(identity.svid.key().to_pem().as_bytes().to_vec())),
            ..TlsCertificate::default()
        })),
    };
    Resource { name: CERTIFICATE_NAME, version, secret: pack(&secret) }
}

fn roots(pem: &str) -> Resource {
    let secret = Secret {
        name: ROOTS_NAME.to_owned(),
        r#type: Some(Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(pem.as_bytes().to_vec())),
            ..CertificateValidationContext::default()
        })),
    };
    Resource { name: ROOTS_NAME, version: version_of(&[pem.as_bytes()]), secret: pack(&secret) }
}

fn svids(identity: &Identity, own: Option<&TrustBundle>) -> X509svidResponse {
    let svid = &identity.svid;
    let chain: Vec<u8> = svid.chain().iter().flat_map(|cert| cert.as_ref().iter().copied()).collect();
    X509svidResponse {
        svids: vec![X509svid {
            spiffe_id: svid.id().as_str().to_owned(),
            x509_svid: chain,
            x509_svid_key: svid.key().as_pkcs8_der().to_vec(),
            bundle: own.map(TrustBundle::to_der).unwrap_or_default(),
            hint: String::new(),
        }],
        crl: Vec::new(),
        federated_bundles: bundle_map(identity, own),
    }
}

/// Bundles by `spiffe://<trust domain>`, without the one given.
fn bundle_map(identity: &Identity, without: Option<&TrustBundle>) -> HashMap<String, Vec<u8>> {
    let left_out = without.map(TrustBundle::trust_domain);
    identity
        .bundles
        .iter()
        .filter(|bundle| left_out != Some(bundle.trust_domain()))
        .map(|bundle| (format!("spiffe://{}", bundle.trust_domain().as_str()), bundle.to_der()))
        .collect()
}

fn bundles_version(identity: &Identity) -> String {
    let digests: Vec<[u8; 32]> = identity.bundles.iter().map(TrustBundle::digest).collect();
    let names = identity.bundles.iter().map(|bundle| bundle.trust_domain().as_str().as_bytes());
    let parts: Vec<&[u8]> = names.zip(&digests).flat_map(|(name, digest)| [name, digest.as_slice()]).collect();
    version_of(&parts)
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() }
}

fn pack(secret: &Secret) -> Any {
    Any { type_url: SECRET_TYPE_URL.to_owned(), value: secret.encode_to_vec() }
}

/// A version string for content: the first 16 bytes of the SHA-256 over the length-prefixed parts, in hexadecimal.
pub(crate) fn version_of(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoded").field("certificate", &self.certificate).field("roots", &self.roots).finish()
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resource").field("name", &self.name).field("version", &self.version).finish()
    }
}
