//! Tokens and those who verify them elsewhere: what the server's HTTPS port shows to everybody, and what can be verified by nothing
//! but that, while the keys turn.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use palisade_identity::tls::client_config_named;
use palisade_identity::{TrustBundle, TrustDomain};
use palisade_tests::clock::Clock;
use palisade_tests::mesh::{Agent, Mesh, TRUST_DOMAIN};
use palisade_tests::{envoy, poll, skip};
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
/// A key signs for half an hour, and is shown for five minutes before that. Certificates outlive the whole test.
const FLAGS: [&str; 6] = ["--jwt-rotate-every", "30m", "--bundle-refresh-hint", "1m", "--leaf-ttl", "24h"];
const MINUTE: i64 = 60;

/// Counts the servers of this process: each gets a loopback address of its own, so that its ports are free over a restart.
static SCENES: AtomicU8 = AtomicU8::new(0);

/// A server that is its tokens' issuer, and an agent of it; both have this clock.
struct Scene {
    mesh: Mesh,
    agent: Agent,
    clock: Clock,
    issuer: String,
}

impl Scene {
    fn start() -> Self {
        let clock = Clock::new().unwrap();
        let mut mesh = Mesh::new(&[]).unwrap();
        let [.., high, low] = std::process::id().to_be_bytes();
        mesh.host = format!("127.{}.{low}.{}", 1 + high % 254, 78 + SCENES.fetch_add(1, Ordering::Relaxed));
        mesh.start_by = clock.command();
        mesh.start_server().unwrap();
        // The port is known only now, and the issuer names it.
        let issuer = format!("https://localhost:{}", mesh.server_address("bundle").unwrap().port());
        assert!(mesh.server().unwrap().stop().unwrap().success());
        mesh.server_flags = FLAGS.iter().chain(&["--jwt-issuer", &issuer]).map(|flag| (*flag).to_owned()).collect();
        mesh.start_server().unwrap();
        let agent = mesh.start_agent("shop", "cart").unwrap();
        Self { mesh, agent, clock, issuer }
    }

    /// The roots that somebody elsewhere was given.
    fn roots(&self) -> String {
        String::from_utf8(self.mesh.palisade(&["ca", "bundle"]).unwrap().stdout).unwrap()
    }

    /// A page of the issuer, fetched by somebody who knows these roots and nothing else.
    fn page_by(&self, roots: &str, url: &str) -> Result<Value> {
        let path = url.strip_prefix(&self.issuer).with_context(|| format!("`{url}` is not the issuer's"))?;
        let roots = TrustBundle::from_pem(TrustDomain::parse(TRUST_DOMAIN)?, roots.as_bytes())?;
        let config = client_config_named(None, &roots, &[b"http/1.1"])?;
        let tcp = TcpStream::connect(self.mesh.server_address("bundle")?)?;
        tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), "localhost".try_into()?)?, tcp);
        write!(tls, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        let head = head.to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200") && head.contains("content-type: application/json"), "{head}");
        Ok(serde_json::from_str(body)?)
    }

    fn page(&self, path: &str) -> Value {
        self.page_by(&self.roots(), &format!("{}{path}", self.issuer)).unwrap()
    }

    /// The key set that discovery names.
    fn keys(&self) -> JwkSet {
        let discovery = self.page("/.well-known/openid-configuration");
        assert_eq!(discovery["issuer"], self.issuer);
        let keys = self.page_by(&self.roots(), discovery["jwks_uri"].as_str().unwrap()).unwrap();
        serde_json::from_value(keys).unwrap()
    }

    /// A token for this audience, by the command line of an application.
    fn token(&self, audience: &str) -> String {
        let socket = self.agent.socket.display().to_string();
        poll("a token", || {
            let output = self.mesh.palisade(&["identity", "fetch", "--socket", &socket, "--jwt", audience]);
            let output = output.map_err(|error| error.to_string())?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned()).ok_or(said)
        })
    }

    /// The claims of a token, verified by these keys alone.
    fn verified(&self, token: &str, audience: &str, keys: &JwkSet) -> Result<Value> {
        let kid = decode_header(token)?.kid.context("no kid")?;
        let key = DecodingKey::from_jwk(keys.find(&kid).with_context(|| format!("no key `{kid}`"))?)?;
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[audience]);
        rules.set_issuer(&[&self.issuer]);
        Ok(decode::<Value>(token, &key, &rules)?.claims)
    }

    /// PyJWT's word on a token, where there is a Python; it fetches everything itself, and its clock is the issuer's.
    fn verified_elsewhere(&self, token: &str, audience: &str) -> Option<Value> {
        let python = envoy::environment().map(|home| home.join("bin/python")).filter(|python| python.exists());
        let Some(python) = python else {
            skip(
                "tokens_are_verified_elsewhere_while_their_keys_turn",
                "no Python with PyJWT: `cargo xtask test` installs it",
            );
            return None;
        };
        let roots = self.mesh.path().join("elsewhere.pem");
        std::fs::write(&roots, self.roots()).unwrap();
        let command = self.clock.command();
        let mut verify = Command::new(&command[0]);
        verify.args(&command[1..]).arg(python).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/interop/oidc_client.py"));
        verify.args([&self.issuer, &self.mesh.host]).arg(roots).arg(audience);
        let mut child = verify.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn check_elsewhere(&self, token: &str, audience: &str) {
        if let Some(said) = self.verified_elsewhere(token, audience) {
            assert_eq!((&said["kid"], &said["claims"]["sub"]), (&kid(token).into(), &CART.into()));
        }
    }
}

fn kid(token: &str) -> String {
    decode_header(token).unwrap().kid.unwrap()
}

fn kids(keys: &JwkSet) -> BTreeSet<String> {
    keys.keys.iter().map(|key| key.common.key_id.clone().unwrap()).collect()
}

/// SPIFFE's bundle has the same keys as the JWK set, and the roots by which this very page was verified.
fn bundle_agrees(scene: &Scene, keys: &JwkSet) -> u64 {
    let bundle = scene.page("/bundle");
    let of =
        |usage: &str| bundle["keys"].as_array().unwrap().iter().filter(|key| key["use"] == usage).collect::<Vec<_>>();
    let named: BTreeSet<String> = of("jwt-svid").iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named, kids(keys));
    let roots = TrustBundle::from_pem(TrustDomain::parse(TRUST_DOMAIN).unwrap(), scene.roots().as_bytes()).unwrap();
    let roots: Vec<String> = roots.authorities().iter().map(|root| STANDARD.encode(root)).collect();
    assert_eq!(of("x509-svid").iter().map(|key| key["x5c"][0].as_str().unwrap()).collect::<Vec<_>>(), roots);
    assert_eq!(bundle["spiffe_refresh_hint"], MINUTE);
    bundle["spiffe_sequence"].as_u64().unwrap()
}

#[test]
fn tokens_are_verified_elsewhere_while_their_keys_turn() {
    let scene = Scene::start();
    let (before, first) = (scene.keys(), scene.token("db"));
    let claims = scene.verified(&first, "db", &before).unwrap();
    assert_eq!((&claims["sub"], &claims["iss"]), (&CART.into(), &scene.issuer.as_str().into()));
    scene.verified(&first, "other", &before).expect_err("another audience");
    scene.check_elsewhere(&first, "db");
    let sequence = bundle_agrees(&scene, &before);

    scene.clock.set(26 * MINUTE).unwrap();
    let shown = poll("the next key to be shown", || match scene.keys() {
        keys if keys.keys.len() == 2 => Ok(keys),
        keys => Err(kids(&keys)),
    });
    assert!(kids(&shown).is_superset(&kids(&before)) && bundle_agrees(&scene, &shown) > sequence);
    assert_eq!(kid(&scene.token("early")), kid(&first), "it is shown before it signs");

    scene.clock.set(31 * MINUTE).unwrap();
    let mut attempt = 0;
    let (audience, token) = poll("a token signed by it", || {
        attempt += 1;
        // The agent keeps tokens; of an audience that it was never asked for it has none.
        let audience = format!("late-{attempt}");
        let token = scene.token(&audience);
        if kid(&token) == kid(&first) { Err(audience) } else { Ok((audience, token)) }
    });
    let claims = scene.verified(&token, &audience, &shown).unwrap();
    assert_eq!(claims["sub"], CART, "verified by keys that were fetched before it signed");
    scene.verified(&token, &audience, &before).expect_err("the first key set does not have it");
    scene.check_elsewhere(&token, &audience);
    assert_eq!(kids(&scene.keys()), kids(&shown), "the first key stays while tokens of it live");
}

#[test]
fn who_does_not_know_the_root_is_shown_nothing() {
    let (scene, other) = (Scene::start(), Scene::start());
    for path in ["/.well-known/openid-configuration", "/keys", "/bundle"] {
        scene.page(path);
        let refused = scene.page_by(&other.roots(), &format!("{}{path}", scene.issuer)).unwrap_err();
        assert!(format!("{refused:#}").contains("UnknownIssuer"), "{refused:#}");
    }
}
