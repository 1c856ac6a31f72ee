//! An issuer of tokens with a key of its own, and the server that hands out its key set.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::app::{App, read_request};

pub(crate) const ISSUER: &str = "https://idp.example";

/// Signs with ES256.
pub(crate) struct Issuer(EcdsaKeyPair);

impl Issuer {
    pub(crate) fn new() -> Issuer {
        Issuer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// The key set as JSON.
    pub(crate) fn jwks(&self) -> String {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "one", "x": encode(x), "y": encode(y)});
        json!({"keys": [key]}).to_string()
    }

    /// A token of these claims as they stand.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": "one"});
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    /// A token of alice, with these claims beside the usual ones. It expires in `seconds`.
    pub(crate) fn token(&self, seconds: i64, more: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": ISSUER, "sub": "alice", "exp": now.cast_signed() + seconds});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.sign(&claims)
    }

    /// A RequestAuthentication of namespace shop with this key inline; `more` are further fields of the rule.
    pub(crate) fn inline(&self, more: &str) -> String {
        rule(&format!("jwks: '{}'\n    {more}", self.jwks()))
    }
}

/// A RequestAuthentication with one rule of [`ISSUER`].
pub(crate) fn rule(fields: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: idp, namespace: shop}}\nspec:\n  \
         jwtRules:\n  - issuer: {ISSUER}\n    {fields}\n---\n"
    )
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Serves a key set, once it is let.
pub(crate) struct KeyServer {
    pub(crate) app: App,
    pub(crate) asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl KeyServer {
    pub(crate) async fn of(jwks: String) -> KeyServer {
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, held) = (asked.clone(), gate.clone());
        let app = App::of(move |mut tcp| {
            let (jwks, counted, held) = (jwks.clone(), counted.clone(), held.clone());
            async move {
                let mut buf = Vec::new();
                while read_request(&mut tcp, &mut buf).await?.is_some() {
                    counted.fetch_add(1, Ordering::SeqCst);
                    held.acquire().await.unwrap().forget();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", jwks.len());
                    tcp.write_all(&[head.as_bytes(), jwks.as_bytes()].concat()).await?;
                }
                Ok(())
            }
        })
        .await;
        KeyServer { app, asked, gate }
    }

    /// Lets so many answers out.
    pub(crate) fn answer(&self, n: usize) {
        self.gate.add_permits(n);
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}/keys", self.app.address)
    }
}
