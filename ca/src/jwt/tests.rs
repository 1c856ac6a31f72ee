use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::*;
use crate::directory::Directory;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
/// Five refresh hints of five minutes.
const LEAD: u64 = 1_500;

fn decoded(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// Verifies as anybody with the JWK set would; gives header and claims.
fn verified(token: &str, jwks: &[Value]) -> Option<(Value, Value)> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { panic!("{token}") };
    let parsed: Value = serde_json::from_slice(&decoded(header)).unwrap();
    let jwk = jwks.iter().find(|jwk| jwk["kid"] == parsed["kid"])?;
    let point = [&[4][..], &decoded(jwk["x"].as_str().unwrap()), &decoded(jwk["y"].as_str().unwrap())].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(format!("{header}.{claims}").as_bytes(), &decoded(signature))
        .unwrap();
    Some((parsed, serde_json::from_slice(&decoded(claims)).unwrap()))
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()
}

fn audience(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn open(now: u64) -> (tempfile::TempDir, Directory, Ring) {
    let dir = tempfile::tempdir().unwrap();
    let (directory, _) = Directory::open(dir.path()).unwrap();
    let ring = Ring::open(&directory, &JwtConfig::default(), now).unwrap();
    (dir, directory, ring)
}

#[test]
fn a_token_says_what_the_standard_wants() {
    let (_dir, _directory, ring) = open(NOW);
    let config = JwtConfig { issuer: Some("https://idp.example".to_owned()), ..JwtConfig::default() };
    let made = issue(&ring, &config, &id(), &audience(&["db", "cache", "db"]), 0, NOW).unwrap();
    let (header, claims) = verified(&made.token, &ring.jwks("jwt-svid")).unwrap();
    assert_eq!(header.as_object().unwrap().keys().collect::<Vec<_>>(), ["alg", "kid", "typ"], "and nothing else");
    assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"JWT".into()));
    assert_eq!(claims["sub"], id().as_str());
    assert_eq!(claims["aud"], serde_json::json!(["cache", "db"]), "always a list, each once");
    assert_eq!((claims["iat"].as_u64(), claims["exp"].as_u64()), (Some(NOW), Some(NOW + 300)));
    assert_eq!((&claims["iss"], &claims["jti"]), (&"https://idp.example".into(), &made.id.as_str().into()));
    let plain = issue(&ring, &JwtConfig::default(), &id(), &audience(&["db"]), 0, NOW).unwrap();
    let (_, claims) = verified(&plain.token, &ring.jwks("jwt-svid")).unwrap();
    assert_eq!((claims.get("iss"), &claims["aud"]), (None, &serde_json::json!(["db"])));
    assert!(!format!("{made:?} {ring:?}").contains(made.token.rsplit('.').next().unwrap()));
}

#[test]
fn lifetimes_are_the_entrys_up_to_the_maximum() {
    let (_dir, _directory, ring) = open(NOW);
    let lifetime = |ttl| {
        let made = issue(&ring, &JwtConfig::default(), &id(), &audience(&["a"]), ttl, NOW).unwrap();
        (made.expires_at - NOW, made.shortened)
    };
    assert_eq!([lifetime(0), lifetime(-1), lifetime(60)], [(300, false), (300, false), (60, false)]);
    assert_eq!([lifetime(3_600), lifetime(3_601), lifetime(i64::MAX)], [(3_600, false), (3_600, true), (3_600, true)]);
}

#[test]
fn an_audience_is_needed_and_bounded() {
    let (_dir, _directory, ring) = open(NOW);
    let refused = |names: Vec<String>| {
        matches!(issue(&ring, &JwtConfig::default(), &id(), &names, 0, NOW), Err(JwtError::Audience))
    };
    assert!(refused(vec![]) && refused(audience(&[""])) && refused(audience(&["a", ""])));
    assert!(refused(vec!["a".repeat(1_025)]) && refused((0..33).map(|n| n.to_string()).collect()));
    assert!(!refused(vec!["a".repeat(1_024)]) && !refused((0..32).map(|n| n.to_string()).collect()));
}

/// Published for five refresh hints, then signing, then kept for as long as a token of it may live: at no moment does a
/// verifier that fetched at the hint meet a key it cannot know.
#[test]
fn trap_44_keys_are_known_before_they_sign_and_until_their_last_token_is_over() {
    let (_dir, directory, mut ring) = open(NOW);
    let config = JwtConfig::default();
    let (mut last, mut signers) = (Vec::new(), vec![ring.signing().kid().to_owned()]);
    let mut published = vec![(NOW - LEAD, ring.signing().kid().to_owned())];
    for now in (NOW..NOW + 4 * DAY).step_by(100) {
        ring = ring.turned(&directory, &config, now).unwrap().unwrap_or(ring);
        let kids: Vec<String> = ring.jwks("x").iter().map(|jwk| jwk["kid"].as_str().unwrap().to_owned()).collect();
        assert!((1..=3).contains(&kids.len()), "{kids:?}");
        for kid in &kids {
            if !published.iter().any(|(_, known)| known == kid) {
                published.push((now, kid.clone()));
            }
        }
        let signing = ring.signing().kid().to_owned();
        let since = published.iter().find(|(_, kid)| *kid == signing).unwrap().0;
        assert!(now - since >= LEAD, "{signing} signs {} s after it was shown", now - since);
        if signers.last() != Some(&signing) {
            signers.push(signing);
        }
        // The longest token that this key may sign now.
        last.push((now + config.max_ttl.as_secs(), ring.signing().kid().to_owned()));
        last.retain(|(expires, _)| *expires >= now);
        assert!(last.iter().all(|(_, kid)| kids.contains(kid)), "at {}", now - NOW);
    }
    assert_eq!(signers.len(), 4, "a new one each day");
    assert!(ring.jwks("x").len() < 4, "old ones go");
}

#[test]
fn a_restart_goes_on_with_the_same_keys() {
    let (_dir, directory, ring) = open(NOW);
    let config = JwtConfig::default();
    let next = ring.turned(&directory, &config, NOW + DAY - LEAD).unwrap().unwrap();
    let again = Ring::open(&directory, &config, NOW + DAY - LEAD).unwrap();
    assert_eq!(next.jwks("x"), again.jwks("x"));
    assert_eq!(next.signing().kid(), ring.signing().kid(), "the new one is shown, not used");
    let later = Ring::open(&directory, &config, NOW + DAY).unwrap();
    assert_ne!(later.signing().kid(), ring.signing().kid());
}

#[test]
fn after_a_long_pause_a_new_key_still_waits_for_the_verifiers() {
    let (_dir, directory, ring) = open(NOW);
    let config = JwtConfig::default();
    let month = NOW + 30 * DAY;
    let woken = Ring::open(&directory, &config, month).unwrap();
    assert_eq!(woken.signing().kid(), ring.signing().kid());
    assert_eq!(woken.jwks("x").len(), 2);
    let turned = woken.turned(&directory, &config, month + LEAD).unwrap().unwrap();
    assert_ne!(turned.signing().kid(), ring.signing().kid());
    let back = Ring::open(&directory, &config, NOW - DAY).unwrap();
    assert_eq!(back.signing().kid(), ring.signing().kid(), "a clock that went back");
}

#[test]
fn damaged_newer_and_open_files_are_refused_by_name() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, directory, _ring) = open(NOW);
    let path = dir.path().join("jwt-keys.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        directory.replace("jwt-keys.json", text.as_bytes()).unwrap();
        Ring::open(&directory, &JwtConfig::default(), NOW).unwrap_err().to_string()
    };
    assert!(refused(&whole[..whole.len() / 2]).contains("jwt-keys.json` is damaged"));
    assert!(refused(r#"{"version":1,"keys":[{"active_from":1,"pkcs8":"AAAA"}]}"#).contains("damaged"));
    assert!(refused(&whole.replace("\"version\":1", "\"version\":2")).contains("newer release"));
    directory.replace("jwt-keys.json", whole.as_bytes()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Ring::open(&directory, &JwtConfig::default(), NOW), Err(RingError::Directory(_))));
}

#[test]
fn settings_that_cannot_work_are_named() {
    let refused = |change: fn(&mut JwtConfig)| {
        let mut config = JwtConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    assert!(JwtConfig::default().check().is_ok());
    assert!(refused(|c| c.ttl = Duration::from_millis(1)).contains("one second"));
    assert!(refused(|c| c.ttl = Duration::from_secs(3_601)).contains("exceeds the maximum"));
    assert!(refused(|c| c.rotate_every = Duration::from_secs(LEAD)).contains("five refresh hints"));
    for issuer in
        ["idp.example", "http://idp.example", "https://idp.example/", "https://a?x=1", "https://u@a", "https://a#b"]
    {
        let config = JwtConfig { issuer: Some(issuer.to_owned()), ..JwtConfig::default() };
        assert_eq!(config.check(), Err(JwtConfigError::Issuer(issuer.to_owned())));
    }
    let good = JwtConfig { issuer: Some("https://idp.example:8443/mesh".to_owned()), ..JwtConfig::default() };
    assert!(good.check().is_ok());
}
