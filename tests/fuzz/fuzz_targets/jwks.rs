//! Key sets as an issuer would serve them. Whatever is read as a key verifies nothing by chance.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use palisade_authz::{Authenticator, Authn, KeySet, KeySource, TokenRequest};
use palisade_policies::{JwksSource, JwtRule, Meta, Origin, RequestAuthentication};

const ALGORITHMS: [&str; 6] = ["ES256", "ES384", "ES512", "RS256", "PS512", "HS256"];

struct One(Arc<KeySet>);

impl KeySource for One {
    fn keys(&self, _: &JwtRule) -> Option<Arc<KeySet>> {
        Some(Arc::clone(&self.0))
    }
}

fn authenticator() -> Authenticator {
    let origin = Origin { file: "fuzz.yaml".into(), line: 1 };
    let rule = JwtRule {
        issuer: String::new(),
        audiences: Vec::new(),
        jwks: JwksSource::Uri("http://keys.test".into()),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claim_to_headers: Vec::new(),
        forward_original_token: false,
        timeout: Duration::from_secs(5),
        space_delimited_claims: Vec::new(),
        origin: origin.clone(),
    };
    let (labels, annotations) = Default::default();
    let (name, namespace) = ("a".to_owned(), "b".to_owned());
    let meta = Meta { name, namespace, labels, annotations, created: None, origin };
    let rules = vec![rule];
    Authenticator::compile(&[Arc::new(RequestAuthentication { meta, selector: None, target_refs: Vec::new(), rules })])
}

fuzz_target!(|text: &str| {
    let Ok(set) = KeySet::parse(text) else { return };
    assert!(set.len() > 0 && set.len() <= text.len());
    let (authenticator, keys) = (authenticator(), One(Arc::new(set)));
    for alg in ALGORITHMS {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
        for signature in [vec![0; 64], vec![1; 64], vec![0; 256], Vec::from([0xff; 32])] {
            let signature = URL_SAFE_NO_PAD.encode(signature);
            let headers = [("authorization", format!("Bearer {header}.e30.{signature}"))];
            let request = TokenRequest { headers: &headers.as_slice(), ..TokenRequest::default() };
            let authn = authenticator.authenticate(&request, &keys, 0);
            assert!(matches!(authn, Authn::Refused(_)), "accepted without a signature");
        }
    }
});
