//! Bad input on the doors of the network: certificate requests, tokens, client certificates, request heads.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "doors_wire/callers.rs"]
mod callers;

use std::error::Error as _;
use std::net::SocketAddr;

use callers::{Caller, Foreign, csr, handshake_and_get, identity};
use palisade_identity::Identity;
use palisade_tests::http::Connection;
use palisade_tests::shop::{HOST, Shop};
use palisade_tests::{poll, poll_async};
use rcgen::KeyPair;
use rustls_pki_types::UnixTime;
use tonic::Code;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const ADMIN: &str = "spiffe://cluster.local/ns/shop/sa/admin";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_requests_never_get_more_than_attested() {
    let shop = Shop::start("# nothing\n").unwrap();
    let token = shop.mesh.join_token("shop", "web").unwrap();
    let address = shop.mesh.server_address("grpc").unwrap();
    let mut caller = Caller::pinned(address, &token);
    let key = KeyPair::generate().unwrap();
    // Refused requests do not spend the token.
    let other = caller.ask(&csr(&key, &[ADMIN]), 0, Some(&token)).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument, "{other}");
    assert!(other.message().contains(WEB), "it says which ID was attested: {other}");
    let two = caller.ask(&csr(&key, &[WEB, ADMIN]), 0, Some(&token)).await.unwrap_err();
    assert_eq!(two.code(), Code::InvalidArgument, "{two}");
    assert!(two.message().contains("2 URIs"), "{two}");
    for garbage in ["", "no PEM", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        let refused = caller.ask(garbage, 0, Some(&token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let answer = caller.ask(&csr(&key, &[]), 0, Some(&token)).await.unwrap();
    let issued = identity(&answer, &key);
    assert_eq!(issued.svid.id().as_str(), WEB, "the ID comes from the attestation");
    // With that certificate only its own ID is to be had.
    let mut renewing = Caller::with(address, &issued);
    let other = renewing.ask(&csr(&key, &[ADMIN]), 0, None).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument, "{other}");
    let again = identity(&renewing.ask(&csr(&key, &[WEB]), 0, None).await.unwrap(), &key);
    assert_eq!(again.svid.id().as_str(), WEB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_replayed_tokens_are_refused_in_the_same_words() {
    let shop = Shop::start("# nothing\n").unwrap();
    let token = shop.mesh.join_token("shop", "web").unwrap();
    let address = shop.mesh.server_address("grpc").unwrap();
    let (mut caller, key, thief) =
        (Caller::pinned(address, &token), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (prefix, secret, root) = {
        let parts: Vec<&str> = token.split('.').collect();
        (parts[0], parts[1], parts[2])
    };
    let mut refusals = Vec::new();
    let wrong = format!("{prefix}.{}.{root}", "A".repeat(secret.len()));
    for bad in [Some(wrong.as_str()), Some("pjt1.x.y"), Some("not-ours"), None] {
        refusals.push(caller.ask(&csr(&key, &[WEB]), 0, bad).await.unwrap_err());
    }
    caller.ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap();
    refusals.push(caller.ask(&csr(&thief, &[WEB]), 0, Some(&token)).await.unwrap_err());
    for refusal in refusals {
        assert_eq!((refusal.code(), refusal.message()), (Code::Unauthenticated, "attestation failed"));
    }
    // Whoever pins another root than the server's does not even send its token.
    let elsewhere = format!("{prefix}.{secret}.{}", "ab".repeat(32));
    let refused = Caller::pinned(address, &elsewhere).ask(&csr(&key, &[WEB]), 0, Some(&elsewhere)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_and_foreign_certificates_do_not_come_in() {
    let shop = Shop::start("# nothing\n").unwrap();
    let token = shop.mesh.join_token("shop", "web").unwrap();
    let server = shop.mesh.server_address("grpc").unwrap();
    let key = KeyPair::generate().unwrap();
    let answer = Caller::pinned(server, &token).ask(&csr(&key, &[WEB]), 1, Some(&token)).await.unwrap();
    let expired = identity(&answer, &key);
    let inbound = shop.payments.address("inbound/0").unwrap();
    poll_async("the certificate to expire", || async {
        if UnixTime::now().as_secs() > expired.svid.not_after().as_secs() { Ok(()) } else { Err("not yet") }
    })
    .await;
    let foreign = Foreign::new();
    let same_name = foreign.identity(WEB, &expired.bundles);
    for (what, caller) in [("expired", &expired), ("foreign", &same_name)] {
        let seen = handshake_and_get(inbound, caller).await;
        assert!(seen.is_err(), "{what}: {seen:?}");
        let status = Caller::with(server, caller).ask(&csr(&key, &[WEB]), 0, None).await.unwrap_err();
        // The connection itself ended: no service was reached that could have answered.
        assert!(status.source().is_some(), "{what} at the server: {status}");
    }
    let nobody = poll("the refusals in the audit log", || {
        let rows = shop.mesh.audit(&["--verdict", "deny"]).map_err(|error| error.to_string())?;
        // A proxy that has no snapshot yet refuses too; that is another reason, and no certificate's fault.
        let refused: Vec<_> = rows.iter().filter(|row| row["reason"] != "no-snapshot").cloned().collect();
        if refused.len() == 2 { Ok(refused) } else { Err(format!("{rows:?}")) }
    });
    for row in nobody {
        assert_eq!((&row["kind"], &row["reason"]), (&"authn.handshake".into(), &"peer-invalid".into()), "{row}");
        assert!(row["src"]["spiffe"].is_null(), "who was refused is nobody: {row}");
    }
    assert!(shop.backend.seen().iter().all(|seen| seen.path == "/warm"));
    // The same door with a good certificate.
    let good = enrol(&shop, server).await;
    assert!(handshake_and_get(inbound, &good).await.unwrap().starts_with("HTTP/1.1 200"));
}

async fn enrol(shop: &Shop, server: SocketAddr) -> Identity {
    let (token, key) = (shop.mesh.join_token("shop", "web").unwrap(), KeyPair::generate().unwrap());
    let answer = Caller::pinned(server, &token).ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap();
    identity(&answer, &key)
}

#[test]
fn oversized_and_broken_heads_are_answered_and_the_connection_ends() {
    let shop = Shop::start("# nothing\n").unwrap();
    let long = format!("x-long: {}\r\n", "a".repeat(300 * 1024));
    let many: String = (0..2000).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        ("long", "GET", "/x", HOST, long.as_str(), 431),
        ("many", "GET", "/x", HOST, many.as_str(), 431),
        ("two hosts", "GET", "/x", HOST, "Host: other\r\n", 400),
        ("two lengths", "GET", "/x", HOST, "Content-Length: 5\r\n", 400),
        ("a space in the name", "GET", "/x", HOST, "bad name: 1\r\n", 400),
    ];
    for (what, method, path, host, fields, expected) in cases {
        for plain in [true, false] {
            let connection = if plain { shop.from_legacy() } else { Connection::open(shop.outbound().unwrap()) };
            let mut connection = connection.unwrap();
            let answer =
                connection.request(method, path, host, fields).unwrap_or_else(|error| panic!("{what}: {error:#}"));
            assert_eq!(answer.status, expected, "{what}: {answer:?}");
            poll("the end of the connection", || connection.closed());
        }
    }
    assert!(shop.backend.seen().iter().all(|seen| seen.path == "/warm"), "nothing of it reached the application");
    assert_eq!(shop.call("GET", "/x").unwrap().status, 200, "the proxies live");
}
