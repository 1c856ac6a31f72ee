//! Callers with certificates: who may ask about what, and who is let in at all.

use std::sync::Arc;

use palisade_authz_service::{Callers, Security};
use palisade_identity::tls::{self, ClientCertificate};
use palisade_identity::{CertificateDer, Identity, SpiffeId, UnixTime, verify_peer};
use palisade_wire::channel;
use palisade_wire::envoy::envoy::service::auth::v3::CheckRequest;
use palisade_wire::envoy::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tonic::transport::Channel;

use crate::pki::Ca;
use crate::world::{Client, World, about, from, get, policy};

const FRONT: &str = "spiffe://cluster.local/ns/web/sa/front";
const GATEWAY: &str = "spiffe://cluster.local/ns/edge/sa/gateway";

/// Mutual TLS with an identity of this authority.
pub(crate) fn mutual(ca: &Ca) -> Security {
    let identity = ca.identity("ns/palisade-system/sa/palisade", 3_600);
    let bundles = Arc::clone(&identity.bundles);
    let config = move || {
        let protocols: &[&[u8]] = &[b"h2", b"http/1.1"];
        Arc::new(tls::server_config(&identity, ClientCertificate::Required, protocols).unwrap())
    };
    let verify = move |chain: &[CertificateDer<'_>]| verify_peer(chain, &bundles, UnixTime::now());
    Security::Mutual(Arc::new((config, verify)))
}

fn client(address: std::net::SocketAddr, ca: &Ca, identity: Option<&Identity>) -> Client {
    let config = tls::client_config_named(identity, &ca.bundle(), &[b"h2"]).unwrap();
    let channel: Channel = channel::tls(&address.to_string(), "localhost", Arc::new(config)).unwrap();
    Client(AuthorizationClient::new(channel))
}

#[tokio::test]
async fn an_identity_may_ask_for_itself_and_a_trusted_one_for_all() {
    let allow = policy("one", "ALLOW", "{from: [{source: {namespaces: [web]}}]}");
    let (mut world, ca) = (World::with(&allow), Ca::new("cluster.local"));
    let callers = Callers { trusted: [SpiffeId::parse(GATEWAY).unwrap()].into(), ..Callers::default() };
    let address = world.ext_authz(mutual(&ca), callers).await;
    let asked = || about(from(get("/"), FRONT), "shop/cart");

    let mut cart = client(address, &ca, Some(&ca.identity("ns/shop/sa/cart", 3_600)));
    assert_eq!(cart.status(asked()).await, 200, "a sidecar's word about its own clients counts");
    assert_eq!(world.records().pop().unwrap().facts.source.principal.as_deref(), Some("cluster.local/ns/web/sa/front"));
    assert_eq!(cart.reason(about(asked(), "shop/left")).await, "caller-not-allowed");

    let mut gateway = client(address, &ca, Some(&ca.identity("ns/edge/sa/gateway", 3_600)));
    assert_eq!(gateway.status(asked()).await, 200);
    assert_eq!(gateway.status(about(asked(), "shop/left")).await, 200);

    let mut stranger = client(address, &ca, Some(&ca.identity("ns/web/sa/front", 3_600)));
    assert_eq!(stranger.reason(asked()).await, "caller-not-allowed");
    assert_eq!(world.records().pop().unwrap().reason, "caller-not-allowed");
    world.stop().await;
}

#[tokio::test]
async fn without_a_certificate_of_this_mesh_nobody_is_let_in() {
    let (mut world, ca) = (World::with(""), Ca::new("cluster.local"));
    let address = world.ext_authz(mutual(&ca), Callers { trust_loopback: true, ..Callers::default() }).await;
    let other = Ca::new("cluster.local");
    for identity in [None, Some(other.identity("ns/shop/sa/cart", 3_600))] {
        let mut client = client(address, &ca, identity.as_ref());
        let request = CheckRequest { attributes: Some(get("/")) };
        assert!(client.0.check(request).await.is_err());
    }
    assert!(world.records().is_empty());
    world.stop().await;
}
