//! Section 7.6 with real sockets: what is fetched, from whom, and what a hostile server gains. Nothing.

use std::sync::Arc;
use std::time::Duration;

use palisade_authz::{Authenticator, JwksCache, JwksConfig, KeySource};
use palisade_policies::{JwksSource, JwtRule};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::kit::*;
use crate::server::*;

pub(crate) fn loopback() -> JwksConfig {
    JwksConfig { allow: vec!["127.0.0.0/8".parse().unwrap()], ..JwksConfig::default() }
}

pub(crate) fn remote(uri: &str) -> JwtRule {
    JwtRule { jwks: JwksSource::Uri(uri.to_owned()), ..rule() }
}

fn discovered(issuer: &str) -> JwtRule {
    JwtRule { issuer: issuer.to_owned(), jwks: JwksSource::Discovery, ..rule() }
}

pub(crate) fn keys() -> String {
    set(&[P256.jwk()])
}

/// Whether keys came, and what went wrong.
async fn outcome(config: JwksConfig, rule: JwtRule) -> (bool, String) {
    let cache = JwksCache::new(config);
    let authenticator = compile(vec![rule.clone()]);
    cache.settle(&authenticator).await;
    let states = cache.states();
    assert_eq!(states.len(), 1);
    (cache.keys(&rule).is_some(), states[0].error.clone().unwrap_or_default())
}

#[track_caller]
fn failed((keys, error): &(bool, String), part: &str) {
    assert!(!keys && error.contains(part), "{keys} {error}");
}

#[tokio::test]
async fn keys_are_fetched_over_http_and_verify() {
    let server = Server::start(|path, _| if path == "/keys?v=1" { ok(&keys()) } else { status(404, "") }).await;
    let cache = JwksCache::new(loopback());
    let authenticator: Authenticator = compile(vec![remote(&server.url("/keys?v=1"))]);
    assert_eq!(refused(bearer(&good()).ask(&authenticator, &cache)).body, "Jwks remote fetch is failed");
    cache.settle(&authenticator).await;
    assert_eq!(subject(bearer(&good()).ask(&authenticator, &cache)).as_deref(), Some("alice"));
    assert_eq!(refused(bearer(&bad()).ask(&authenticator, &cache)).status, 401);
    assert_eq!(cache.states()[0].keys, Some(1));
}

#[tokio::test]
async fn chunked_answers_are_read() {
    let server = Server::start(|_, _| {
        let keys = keys();
        let (one, two) = keys.split_at(10);
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Reply::Send(format!("{head}a\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n", two.len()).into_bytes())
    })
    .await;
    assert_eq!(outcome(loopback(), remote(&server.url("/"))).await, (true, String::new()));
}

#[tokio::test]
async fn the_issuers_openid_configuration_leads_to_the_keys() {
    for slash in ["", "/"] {
        let server = Server::start(|_, _| ok(&keys())).await;
        let configuration = format!(r#"{{"issuer":"x","jwks_uri":"{}"}}"#, server.url("/keys"));
        let issuer = Server::start(move |path, _| match path {
            "/tenant/.well-known/openid-configuration" => ok(&configuration),
            _ => status(404, ""),
        })
        .await;
        let rule = discovered(&format!("{}{slash}", issuer.url("/tenant")));
        assert_eq!(outcome(loopback(), rule).await, (true, String::new()));
        assert_eq!((issuer.requests(), server.requests()), (1, 1));
    }
}

#[tokio::test]
async fn an_openid_configuration_that_leads_nowhere_is_an_error() {
    for body in ["{}", "[]", "x", r#"{"jwks_uri":1}"#, r#"{"jwks_uri":""}"#] {
        let server = Server::start(move |_, _| ok(body)).await;
        failed(&outcome(loopback(), discovered(&server.url(""))).await, "names no `jwks_uri`");
    }
}

#[tokio::test]
async fn an_openid_configuration_cannot_lead_to_a_private_address() {
    for uri in ["http://169.254.169.254/latest", "http://10.0.0.1/", "http://[::1]/", "http://[::ffff:10.0.0.1]/"] {
        let server = Server::start(move |_, _| ok(&format!(r#"{{"jwks_uri":"{uri}"}}"#))).await;
        failed(&outcome(loopback(), discovered(&server.url(""))).await, "may not reach");
    }
    let server = Server::start(|_, _| ok(r#"{"jwks_uri":"file:///etc/passwd"}"#)).await;
    failed(&outcome(loopback(), discovered(&server.url(""))).await, "is not an http or https URI");
}

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let server = Server::start(|_, _| ok(&keys())).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let uri = format!("http://{host}:{}/", server.address.port());
        let outcome = outcome(JwksConfig::default(), remote(&uri)).await;
        failed(&outcome, "which the key fetcher may not reach (`palisade.jwksAllow` lists exceptions)");
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn names_are_resolved_and_their_addresses_judged() {
    let server = Server::start(|_, _| ok(&keys())).await;
    let uri = format!("http://localhost:{}/", server.address.port());
    assert_eq!(outcome(loopback(), remote(&uri)).await, (true, String::new()));
    let (keys, error) = outcome(loopback(), remote("http://nobody.invalid/")).await;
    // A machine without a resolver may not even learn that.
    assert!(!keys && (error.contains("cannot resolve `nobody.invalid`") || error == "no answer in time"), "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let inner = Server::start(|_, _| ok(&keys())).await;
    for code in [301, 302, 303, 307, 308] {
        let location = inner.url("/secret");
        let server = Server::start(move |_, _| {
            Reply::Send(format!("HTTP/1.1 {code} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes())
        })
        .await;
        failed(&outcome(loopback(), remote(&server.url("/"))).await, &format!("answered {code}"));
    }
    assert_eq!(inner.requests(), 0);
}

#[tokio::test]
async fn answers_that_are_no_key_set_are_errors() {
    for (reply, part) in [(500, "answered 500"), (404, "answered 404"), (204, "answered 204"), (201, "answered 201")] {
        let server = Server::start(move |_, _| status(reply, &keys())).await;
        failed(&outcome(loopback(), remote(&server.url("/"))).await, part);
    }
    for (body, part) in [
        ("", "is no key set: the key set is no JSON object"),
        ("<html></html>", "is no key set: the key set is no JSON object"),
        (r#"{"keys":[]}"#, "has no usable key"),
        (r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#, "the RSA key has less than 2048"),
    ] {
        let server = Server::start(move |_, _| ok(body)).await;
        failed(&outcome(loopback(), remote(&server.url("/"))).await, part);
    }
}

#[tokio::test]
async fn what_is_no_http_is_an_error() {
    for bytes in [
        b"".as_slice(),
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"keys\":",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nxxxxx",
    ] {
        let server = Server::start(move |_, _| Reply::Send(bytes.to_vec())).await;
        failed(&outcome(loopback(), remote(&server.url("/"))).await, "the exchange with");
    }
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe";
    let server = Server::start(move |_, _| Reply::Send(text.to_vec())).await;
    failed(&outcome(loopback(), remote(&server.url("/"))).await, "is no text");
}

#[tokio::test]
async fn long_answers_are_cut() {
    let announced = b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n".to_vec();
    let server = Server::start(move |_, _| Reply::Hold(announced.clone())).await;
    failed(&outcome(loopback(), remote(&server.url("/"))).await, "is longer than 1048576 bytes");
    let endless = b"HTTP/1.1 200 OK\r\n\r\n                                ".to_vec();
    let server = Server::start(move |_, _| Reply::Repeat(endless.clone())).await;
    failed(&outcome(loopback(), remote(&server.url("/"))).await, "is longer than 1048576 bytes");
    let head = b"x-header: value value value value value\r\n".to_vec();
    let server = Server::start(move |_, _| Reply::Repeat(head.clone())).await;
    failed(&outcome(loopback(), remote(&server.url("/"))).await, "the exchange with");
}

#[tokio::test]
async fn servers_that_keep_silent_or_drip_are_left_at_the_rules_timeout() {
    for held in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":["] {
        let server = Server::start(move |_, _| Reply::Hold(held.as_bytes().to_vec())).await;
        let rule = JwtRule { timeout: Duration::from_millis(100), ..remote(&server.url("/")) };
        failed(&outcome(loopback(), rule).await, "no answer in time");
        server.gone(1).await;
    }
}

#[tokio::test]
async fn a_closed_port_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    failed(&outcome(loopback(), remote(&uri)).await, "cannot connect to");
}

/// A certificate authority and a server with a certificate for `name`.
async fn https(name: &str, body: &'static str) -> (CertificateDer<'static>, Server) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    let reply = move |_: &str, _| if body.is_empty() { ok(&keys()) } else { ok(body) };
    let server = Server::with_tls(TlsAcceptor::from(Arc::new(config)), reply).await;
    (root.der().clone(), server)
}

fn trusting(root: CertificateDer<'static>) -> JwksConfig {
    JwksConfig { extra_roots: vec![root], ..loopback() }
}

#[tokio::test]
async fn keys_are_fetched_over_https_from_whom_the_roots_vouch_for() {
    let (root, server) = https("localhost", "").await;
    let uri = format!("https://localhost:{}/", server.address.port());
    assert_eq!(outcome(trusting(root), remote(&uri)).await, (true, String::new()));
    failed(&outcome(loopback(), remote(&uri)).await, "UnknownIssuer");
    let (other, _server) = https("localhost", "").await;
    failed(&outcome(trusting(other), remote(&uri)).await, "invalid peer certificate");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (root, server) = https("elsewhere.example", "").await;
    let uri = format!("https://localhost:{}/", server.address.port());
    failed(&outcome(trusting(root), remote(&uri)).await, "not valid for name");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn an_issuer_on_https_cannot_lead_to_keys_over_http() {
    let (root, server) = https("localhost", r#"{"jwks_uri":"http://127.0.0.1:1/keys"}"#).await;
    let issuer = format!("https://localhost:{}", server.address.port());
    failed(&outcome(trusting(root), discovered(&issuer)).await, "leads from https to http");
}

#[tokio::test]
async fn plaintext_behind_an_https_uri_is_an_error() {
    let server = Server::start(|_, _| ok(&keys())).await;
    let uri = format!("https://localhost:{}/", server.address.port());
    // A server that waits for the end of a request head does not answer a handshake.
    let rule = JwtRule { timeout: Duration::from_millis(300), ..remote(&uri) };
    failed(&outcome(loopback(), rule).await, "no answer in time");
    assert_eq!(server.requests(), 0);
}
