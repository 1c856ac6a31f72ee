//! A revoked peer loses what it has open, at once and on record; everybody else notices nothing.

use std::sync::Arc;
use std::time::Duration;

use palisade_authz::{Verdict, reason};
use palisade_identity::{Identity, TrustBundles};
use palisade_policies::AppProtocol;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::app::App;
use crate::certificates::Source;
use crate::client::{mtls, plain, sidecar};
use crate::outbound::registry;
use crate::world::{Cast, OPEN, World, inbound_to, outbound_to};

/// `identity` as the agent installs it after a revocation: the same certificate, other trust.
fn denying(identity: &Identity, serial: &str) -> Arc<Identity> {
    let mut bundles: TrustBundles = (*identity.bundles).clone();
    bundles.with_denied([serial.to_owned()].into());
    Arc::new(Identity { svid: Arc::clone(&identity.svid), bundles: Arc::new(bundles) })
}

fn revoke(source: &Source, serial: &str) {
    use palisade_identity::SvidSource;
    source.rotate(denying(&source.current().unwrap(), serial));
}

async fn ends(mut connection: impl AsyncRead + Unpin) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(2), connection.read_to_end(&mut rest)).await;
    let ended = ended.unwrap_or_else(|_| panic!("still open after two seconds"));
    assert!(ended.is_err() || rest.is_empty());
}

#[tokio::test]
async fn idle_and_opaque_connections_of_a_revoked_caller_end() {
    for protocol in [AppProtocol::Http, AppProtocol::Tcp] {
        let app = if protocol == AppProtocol::Tcp { App::echo().await } else { App::mirror().await };
        let cast = Cast::new();
        let world = World::start(&inbound_to(app.address, Some(protocol)), cast.cart(), Some(OPEN));
        let thief = cast.authority.identity("shop", "web", 3600, &[]);
        let web = cast.authority.identity("shop", "web", 3600, &[]);
        let (mut stolen, mut good) = (sidecar(world.address(), &thief).await, sidecar(world.address(), &web).await);
        for client in [&mut stolen, &mut good] {
            if protocol == AppProtocol::Http {
                assert_eq!(client.get("/").await.status, 200);
            } else {
                client.io.write_all(b"hi").await.unwrap();
                client.io.read_exact(&mut [0; 2]).await.unwrap();
            }
        }
        let before = world.records.wait(2).await.len();
        revoke(&world.source, thief.svid.serial());
        ends(stolen.io).await;
        let records = world.records.wait(before + 1).await;
        let record = records.last().unwrap();
        assert_eq!((record.reason, record.verdict), (reason::PEER_REVOKED, Verdict::Deny));
        assert_eq!(record.facts.source.principal.as_deref(), Some("cluster.local/ns/shop/sa/web"));
        if protocol == AppProtocol::Http {
            assert_eq!(good.get("/").await.status, 200, "another certificate of the same ID");
        } else {
            good.io.write_all(b"on").await.unwrap();
            good.io.read_exact(&mut [0; 2]).await.unwrap();
        }
        let before =
            world.records.wait(if protocol == AppProtocol::Http { before + 2 } else { before + 1 }).await.len();
        let refused = mtls(world.address(), &thief, &[b"istio-http/1.1", b"istio"]).await;
        if let Ok(refused) = refused {
            ends(refused).await;
        }
        let records = world.records.wait(before + 1).await;
        assert_eq!(records.last().unwrap().reason, reason::PEER_REVOKED, "a new connection is refused by that name");
        assert_eq!(records.len(), before + 1);
    }
}

/// A response under way is cut, not finished: its reader is who should not have it.
#[tokio::test]
async fn a_request_under_way_is_cut() {
    let app = App::of(|mut tcp| async move {
        let mut buf = Vec::new();
        crate::app::read_request(&mut tcp, &mut buf).await?;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun").await?;
        std::future::pending().await
    })
    .await;
    let cast = Cast::new();
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    let thief = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = sidecar(world.address(), &thief).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut head = [0; 15];
    client.io.read_exact(&mut head).await.unwrap();
    revoke(&world.source, thief.svid.serial());
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(2), client.io.read_to_end(&mut rest)).await.unwrap();
    assert!(ended.is_err() || rest.len() < 1000);
}

/// The other direction: an opaque connection of the application to a workload that is revoked.
#[tokio::test]
async fn an_opaque_call_to_a_revoked_server_ends() {
    let (app, cast) = (App::echo().await, Cast::new());
    let inbound = World::start(&inbound_to(app.address, Some(AppProtocol::Tcp)), cast.cart(), Some(OPEN));
    let web = Source::of(cast.authority.identity("shop", "web", 3600, &[]));
    let services = registry(&[inbound.address()], true, "TCP");
    let outbound = World::start(&outbound_to("cart.shop", 80), web, Some(&services));
    let mut client = plain(outbound.address()).await;
    client.io.write_all(b"hi").await.unwrap();
    client.io.read_exact(&mut [0; 2]).await.unwrap();
    let serial = {
        use palisade_identity::SvidSource;
        inbound.source.current().unwrap().svid.serial().to_owned()
    };
    revoke(&outbound.source, &serial);
    ends(client.io).await;
}

/// And a response that a revoked server has begun: what follows is not to be believed.
#[tokio::test]
async fn a_response_of_a_revoked_server_is_cut() {
    let app = App::of(|mut tcp| async move {
        let mut buf = Vec::new();
        crate::app::read_request(&mut tcp, &mut buf).await?;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun").await?;
        std::future::pending().await
    })
    .await;
    let cast = Cast::new();
    let inbound = World::start(&inbound_to(app.address, Some(AppProtocol::Http1)), cast.cart(), Some(OPEN));
    let web = Source::of(cast.authority.identity("shop", "web", 3600, &[]));
    let services = registry(&[inbound.address()], true, "HTTP");
    let outbound = World::start(&outbound_to("cart.shop", 80), web, Some(&services));
    let mut client = plain(outbound.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n").await;
    let mut head = [0; 15];
    client.io.read_exact(&mut head).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&head), "HTTP/1.1 200 OK");
    let serial = {
        use palisade_identity::SvidSource;
        inbound.source.current().unwrap().svid.serial().to_owned()
    };
    revoke(&outbound.source, &serial);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(2), client.io.read_to_end(&mut rest)).await;
    let ended = ended.unwrap_or_else(|_| panic!("not cut"));
    assert!(ended.is_err() || rest.len() < 1000);
}

/// Nobody would talk to it: whoever sends work there is told so.
#[tokio::test]
async fn a_proxy_whose_own_certificate_is_revoked_is_not_ready_until_it_has_another() {
    use palisade_identity::SvidSource;
    let (app, cast) = (App::mirror().await, Cast::new());
    let mut world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    world.ready.wait_for(|ready| *ready).await.unwrap();
    let own = world.source.current().unwrap().svid.serial().to_owned();
    revoke(&world.source, &own);
    let seen = tokio::time::timeout(Duration::from_secs(10), world.ready.wait_for(|ready| !*ready)).await;
    seen.expect("still ready").unwrap();
    world.source.rotate(cast.authority.identity("shop", "cart", 3600, &[]));
    world.ready.wait_for(|ready| *ready).await.unwrap();
}
