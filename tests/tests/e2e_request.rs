//! RequestAuthentication and CUSTOM as they are edited: in force within a moment, at every request, with a row that says why.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_tests::http::{Answer, Connection};
use palisade_tests::poll;
use palisade_tests::shop::{HOST, Shop};
use serde_json::{Value, json};

/// Signs tokens with a key that stands in the policy.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// Tokens of this issuer are verified, and `/token` needs one; `inline` says where the keys stand.
    fn policies(source: &str) -> String {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: idp, namespace: shop}}\nspec:\n  \
             jwtRules:\n  - issuer: https://idp.example\n    outputClaimToHeaders: [{{header: x-sub, claim: sub}}]\n    {source}\n---\n\
             apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: token, namespace: shop}}\nspec:\n  \
             action: DENY\n  rules:\n  - from: [{{source: {{notRequestPrincipals: ['*']}}}}]\n    \
             to: [{{operation: {{paths: ['/token*']}}}}]\n"
        )
    }

    fn jwks(&self) -> String {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "x": encode(x), "y": encode(y)}]}).to_string()
    }

    fn token(&self, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let claims = json!({"iss": "https://idp.example", "sub": "alice", "exp": now + seconds});
        let header = json!({"alg": "ES256", "kid": "a"});
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A request from web's application with these fields.
fn ask(shop: &Shop, path: &str, fields: &str) -> anyhow::Result<Answer> {
    Connection::open(shop.outbound()?)?.request("GET", path, HOST, fields)
}

/// Waits until such a request is answered so.
fn answered(shop: &Shop, path: &str, fields: &str, status: u16) -> Answer {
    poll("the edit to be enforced", || match ask(shop, path, fields) {
        Ok(answer) if answer.status == status => Ok(answer),
        other => Err(format!("{other:?}")),
    })
}

/// Waits for the row of a denied request.
fn row(shop: &Shop, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    poll("the row", || {
        let rows = shop.mesh.audit(&["--verdict", "deny"]).map_err(|error| format!("{error:#}"))?;
        let found = rows.iter().find(|row| row["path"] == path && wanted(row)).cloned();
        found.ok_or_else(|| format!("{} rows: {:?}", rows.len(), rows.last()))
    })
}

#[test]
fn tokens_are_demanded_verified_and_stripped() {
    let (mut shop, issuer) = (Shop::start("# nothing yet\n").unwrap(), Issuer::new());
    assert_eq!(ask(&shop, "/token/a", "").unwrap().status, 200);
    let inline = Issuer::policies(&format!("jwks: '{}'", issuer.jwks()));
    shop.mesh.write_config("policies.yaml", &inline).unwrap();
    answered(&shop, "/token/a", "", 403);
    let good = format!("Authorization: Bearer {}\r\nX-Sub: root\r\n", issuer.token(300));
    let answer = ask(&shop, "/token/good", &good).unwrap();
    assert_eq!(answer.status, 200);
    let seen =
        shop.backend.seen().into_iter().find(|seen| seen.path == "/token/good").unwrap().head.to_ascii_lowercase();
    assert!(seen.contains("x-sub: alice") && !seen.contains("authorization") && !seen.contains("root"), "{seen}");
    let expired = format!("Authorization: Bearer {}\r\n", issuer.token(-300));
    let answer = ask(&shop, "/token/old", &expired).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (401, "Jwt is expired"));
    assert!(answer.head.to_ascii_lowercase().contains("www-authenticate: bearer realm="), "{answer:?}");
    let refused = row(&shop, "/token/old", |_| true);
    assert_eq!((&refused["phase"], &refused["reason"]), (&json!("authn"), &json!("token-invalid")));
    assert_eq!((&refused["status"], &refused["kind"]), (&json!(401), &json!("authz.decision")));
    assert_eq!(refused["src"]["spiffe"], "spiffe://cluster.local/ns/shop/sa/web");
    let kept = format!("{:?}{}", shop.mesh.audit_all().unwrap(), shop.payments.process().unwrap().log());
    let payload = |fields: &str| fields.split('.').nth(1).unwrap().to_owned();
    assert!(!kept.contains(&payload(&good)) && !kept.contains(&payload(&expired)), "no token is kept");
    fetched(&shop, &issuer);
}

/// The same rule with its keys at an address, which has to be allowed first.
fn fetched(shop: &Shop, issuer: &Issuer) {
    let (jwks, good) = (issuer.jwks(), format!("Authorization: Bearer {}\r\n", issuer.token(300)));
    let (keys, _) = serve(move |_, _| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{jwks}", jwks.len()));
    let policies = Issuer::policies(&format!("jwksUri: http://{keys}/keys"));
    shop.mesh.write_config("policies.yaml", &policies).unwrap();
    answered(shop, "/token/a", &good, 401);
    shop.mesh.write_config("mesh.yaml", "palisade: {jwksAllow: [127.0.0.0/8]}\n").unwrap();
    answered(shop, "/token/a", &good, 200);
}

/// Answers every request on loopback; keeps what was asked.
fn serve(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked, answer) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
    let kept = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (kept, answer) = (kept.clone(), answer.clone());
            std::thread::spawn(move || one(stream, &kept, &*answer));
        }
    });
    (address, asked)
}

fn one(stream: TcpStream, kept: &Mutex<Vec<String>>, answer: &dyn Fn(&str, &str) -> String) -> anyhow::Result<()> {
    let mut connection = Connection::over(stream)?;
    loop {
        let (line, head, _) = connection.message()?;
        kept.lock().unwrap().push(format!("{line}\r\n{head}"));
        connection.send(answer(&line, &head).as_bytes())?;
    }
}

const CUSTOM: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec:
  selector: {matchLabels: {app: payments}}
  action: CUSTOM
  provider: {name: asker}
  rules:
  - to:
    - operation: {paths: [\"/custom*\"]}
";

#[test]
fn a_provider_is_asked_obeyed_and_missed() {
    let shop = Shop::start("# nothing yet\n").unwrap();
    let (provider, asked) = serve(|line, _| {
        let refused = line.contains("/custom/no");
        let answer = if refused { "402 Payment Required" } else { "200 OK\r\nX-User: bob" };
        let body = if refused { "pay first" } else { "" };
        format!("HTTP/1.1 {answer}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    let mesh = |port: u16, more: &str| {
        format!(
            "extensionProviders:\n- name: asker\n  envoyExtAuthzHttp: {{service: 127.0.0.1, port: {port}, \
             headersToUpstreamOnAllow: [x-user]{more}}}\n"
        )
    };
    shop.mesh.write_config("mesh.yaml", &mesh(provider.port(), "")).unwrap();
    shop.mesh.write_config("policies.yaml", CUSTOM).unwrap();
    let refused = answered(&shop, "/custom/no", "", 402);
    assert_eq!(refused.body, "pay first");
    assert_eq!(ask(&shop, "/custom/yes", "").unwrap().status, 200);
    let seen = shop.backend.seen().into_iter().find(|seen| seen.path == "/custom/yes").unwrap().head;
    assert!(seen.to_ascii_lowercase().contains("x-user: bob"), "{seen}");
    assert_eq!(ask(&shop, "/free", "").unwrap().status, 200);
    assert!(asked.lock().unwrap().iter().all(|asked| asked.starts_with("GET /custom/")), "{asked:?}");
    let denied = row(&shop, "/custom/no", |row| row["status"] == 402);
    assert_eq!((&denied["phase"], &denied["reason"]), (&json!("custom"), &json!("custom-denied")));
    assert_eq!(denied["policy"]["source_ref"], "policies.yaml:9");
    assert!(denied["policy"]["id"].as_str().unwrap().ends_with("ns[shop]-policy[ask]-rule[0]"), "{denied}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    shop.mesh.write_config("mesh.yaml", &mesh(nobody.port(), ", statusOnError: '503'")).unwrap();
    answered(&shop, "/custom/yes", "", 503);
    assert_eq!(row(&shop, "/custom/yes", |_| true)["reason"], "custom-error");
    shop.mesh.write_config("mesh.yaml", "extensionProviders: []\n").unwrap();
    answered(&shop, "/custom/yes", "", 403);
    assert_eq!(row(&shop, "/custom/yes", |row| row["status"] == 403)["reason"], "no-provider");
}
