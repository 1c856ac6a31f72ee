//! A caller with a certificate of the real authority, asking the real server over mutual TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use palisade_identity::{Identity, PrivateKey, TrustBundle, TrustBundles, TrustDomain, X509Svid, tls};
use palisade_tests::mesh::{Mesh, TRUST_DOMAIN};
use palisade_wire::channel;
use palisade_wire::envoy::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use palisade_wire::envoy::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use palisade_wire::envoy::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use palisade_wire::istio_ca::IstioCertificateRequest;
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tonic::Status;

/// A certificate for a service account of `shop`, by join token.
pub(crate) async fn identity(mesh: &Mesh, account: &str) -> Identity {
    let token = mesh.join_token("shop", account).unwrap();
    let hex = token.rsplit('.').next().unwrap();
    let hash = std::array::from_fn(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap());
    let config = Arc::new(tls::client_config_pinned(hash, &[b"h2"]).unwrap());
    let server = mesh.server_address("grpc").unwrap().to_string();
    let mut client = IstioCertificateServiceClient::new(channel::tls(&server, "localhost", config).unwrap());
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let message = IstioCertificateRequest { csr, validity_duration: 0, metadata: None };
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let answer = client.create_certificate(request).await.unwrap().into_inner();
    let (roots, chain) = answer.cert_chain.split_last().unwrap();
    let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect();
    let bundle = TrustBundle::from_pem(TrustDomain::parse(TRUST_DOMAIN).unwrap(), roots.as_bytes()).unwrap();
    let key = PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap();
    let bundles = Arc::new(TrustBundles::from_iter([bundle]));
    Identity { svid: Arc::new(X509Svid::new(chain, key).unwrap()), bundles }
}

/// The gRPC code of the answer to `GET /` from `principal` to `workload`: 0 is allowed.
pub(crate) async fn ask(
    server: SocketAddr,
    trusting: &Identity,
    shown: Option<&Identity>,
    workload: &str,
    principal: &str,
) -> Result<i32, Status> {
    let roots = trusting.bundles.get(TRUST_DOMAIN).unwrap();
    let config = Arc::new(tls::client_config_named(shown, roots, &[b"h2"]).unwrap());
    let mut client = AuthorizationClient::new(channel::tls(&server.to_string(), "localhost", config).unwrap());
    let http = HttpRequest { method: "GET".into(), path: "/".into(), host: "cart".into(), ..HttpRequest::default() };
    let attributes = AttributeContext {
        source: Some(Peer { principal: principal.to_owned(), ..Peer::default() }),
        request: Some(Request { http: Some(http), ..Request::default() }),
        context_extensions: [("palisade.workload".to_owned(), workload.to_owned())].into(),
        ..AttributeContext::default()
    };
    let answer = client.check(CheckRequest { attributes: Some(attributes) }).await?.into_inner();
    Ok(answer.status.unwrap().code)
}
