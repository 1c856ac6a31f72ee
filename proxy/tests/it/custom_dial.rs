//! How providers are reached: as services of the mesh, with our identity, across a rotation of certificates.

use palisade_policies::AppProtocol;

use crate::app::App;
use crate::certificates::Source;
use crate::client::plain;
use crate::provider::{Grpc, custom, over_http};
use crate::world::{Cast, World, inbound_to, mode};

/// Only the cart's proxy may ask.
const CART_ASKS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart-asks, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/cart]}}]
";

/// The service `asker.shop`, behind this proxy.
fn service(of: &World) -> String {
    let address = of.address();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: asker, namespace: shop}}\nspec:\n  \
         hosts: [asker.shop]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports: [{{number: 9000, name: main, protocol: TCP}}]\n  \
         endpoints:\n  - address: {}\n    ports: {{main: {}}}\n    serviceAccount: asker\n    \
         labels: {{security.istio.io/tlsMode: istio}}\n---\n",
        address.ip(),
        address.port()
    )
}

/// Asks before and after both sides' certificates changed; every request passes, and the other side knew who asked.
async fn passes(cast: &Cast, asker: &World, mesh: &str) {
    let app = App::mirror().await;
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let policies = format!("{}{}", service(asker), custom("paths: [/a]"));
    let world = World::start_meshed(&config, cast.cart(), Some(&policies), Some(mesh));
    let mut client = plain(world.address()).await;
    for round in 1..=3 {
        let answer = client.get("/a").await;
        assert!(
            answer.status == 200 && answer.body.to_ascii_lowercase().contains("x-user: bob"),
            "{round}: {answer:?}"
        );
        let records = asker.records.wait(round).await;
        let principals: Vec<_> = records.iter().map(|r| r.facts.source.principal.clone().unwrap()).collect();
        assert!(principals.iter().all(|one| one == "cluster.local/ns/shop/sa/cart"), "{principals:?}");
        let opened = format!("palisade_mtls_connections_total{{security=\"mtls\",direction=\"inbound\"}} {round}\n");
        assert!(asker.metrics().contains(&opened), "a new certificate is a new connection: {}", asker.metrics());
        world.source.rotate(cast.authority.identity("shop", "cart", 3600, &[]));
    }
}

fn identity(cast: &Cast) -> std::sync::Arc<Source> {
    Source::of(cast.authority.identity("shop", "asker", 3600, &[]))
}

#[tokio::test]
async fn a_grpc_provider_of_the_mesh_is_asked_over_mtls() {
    let (provider, cast) = (Grpc::start().await, Cast::new());
    let config = inbound_to(provider.address, Some(AppProtocol::Grpc));
    let asker = World::start(&config, identity(&cast), Some(&format!("{CART_ASKS}---{}", mode("STRICT"))));
    let mesh = "extensionProviders: [{name: asker, envoyExtAuthzGrpc: {service: shop/asker.shop, port: 9000}}]";
    passes(&cast, &asker, mesh).await;
}

#[tokio::test]
async fn an_http_provider_of_the_mesh_is_asked_over_mtls() {
    let ((provider, _heads), cast) = (over_http().await, Cast::new());
    let config = inbound_to(provider.address, Some(AppProtocol::Http));
    let asker = World::start(&config, identity(&cast), Some(&format!("{CART_ASKS}---{}", mode("STRICT"))));
    let mesh = "extensionProviders: [{name: asker, envoyExtAuthzHttp: {service: asker.shop, port: 9000, \
                headersToUpstreamOnAllow: [x-user]}}]";
    passes(&cast, &asker, mesh).await;
}

#[tokio::test]
async fn somebody_else_at_the_providers_address_is_not_asked() {
    let (provider, cast) = (Grpc::start().await, Cast::new());
    let config = inbound_to(provider.address, Some(AppProtocol::Grpc));
    let impostor = Source::of(cast.authority.identity("shop", "web", 3600, &[]));
    let asker = World::start(&config, impostor, Some(&mode("STRICT")));
    let mesh = "extensionProviders: [{name: asker, envoyExtAuthzGrpc: {service: asker.shop, port: 9000}}]";
    let app = App::mirror().await;
    let policies = format!("{}{}", service(&asker), custom("paths: [/a]"));
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let world = World::start_meshed(&config, cast.cart(), Some(&policies), Some(mesh));
    assert_eq!(plain(world.address()).await.get("/a").await.status, 403);
    assert!(provider.asked.lock().unwrap().is_empty());
}
