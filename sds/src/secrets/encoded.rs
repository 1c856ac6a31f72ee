//! Envoy's secrets.

use aws_lc_rs::digest;
use palisade_identity::{TrustBundle, X509Svid};
use palisade_wire::SECRET_TYPE_URL;
use palisade_wire::envoy::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier};
use palisade_wire::envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret::Type,
    spiffe_cert_validator_config::TrustDomain,
};
use palisade_wire::envoy::google::protobuf::Any;
use prost::Message;

/// Envoy's name of its validator that binds roots to trust domains.
const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// One SDS secret.
#[derive(Clone)]
pub(crate) struct Resource {
    /// The name it is asked by, and carries: Envoy passes over a secret of another name without a word.
    pub(crate) name: String,
    /// Hash of the content: it changes when and only when the content does.
    pub(crate) version: String,
    /// The packed secret. May hold a private key.
    pub(crate) secret: Any,
}

/// Chain and key.
pub(super) fn certificate(name: &str, svid: &X509Svid, version: &str) -> Resource {
    let content = Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(inline(svid.chain_pem().into_bytes())),
        private_key: Some(inline(svid.key().to_pem().as_bytes().to_vec())),
        ..TlsCertificate::default()
    });
    pack(name, version, content)
}

/// The roots of one trust domain, for whoever checks names by itself.
pub(super) fn roots(name: &str, bundle: &TrustBundle) -> Resource {
    let pem = bundle.to_pem();
    let version = version_of(&[pem.as_bytes()]);
    let content = Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(inline(pem.into_bytes())),
        ..CertificateValidationContext::default()
    });
    pack(name, &version, content)
}

/// The roots of several trust domains, each for its own IDs only, in the order given.
pub(super) fn domains<'a>(name: &str, bundles: impl Iterator<Item = &'a TrustBundle>, version: &str) -> Resource {
    let trust_domains = bundles.map(|bundle| TrustDomain {
        name: bundle.trust_domain().as_str().to_owned(),
        trust_bundle: Some(inline(bundle.to_pem().into_bytes())),
        ..TrustDomain::default()
    });
    let config =
        SpiffeCertValidatorConfig { trust_domains: trust_domains.collect(), ..SpiffeCertValidatorConfig::default() };
    let content = Type::ValidationContext(CertificateValidationContext {
        custom_validator_config: Some(TypedExtensionConfig {
            name: VALIDATOR.to_owned(),
            typed_config: Some(Any { type_url: VALIDATOR_TYPE_URL.to_owned(), value: config.encode_to_vec() }),
        }),
        ..CertificateValidationContext::default()
    });
    pack(name, version, content)
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() }
}

fn pack(name: &str, version: &str, content: Type) -> Resource {
    let secret = Secret { name: name.to_owned(), r#type: Some(content) };
    let secret = Any { type_url: SECRET_TYPE_URL.to_owned(), value: secret.encode_to_vec() };
    Resource { name: name.to_owned(), version: version.to_owned(), secret }
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

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resource").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}
