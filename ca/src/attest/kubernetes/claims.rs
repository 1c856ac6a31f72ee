//! What stands in a token, read strictly: whatever is missing, doubled in meaning or of another type refuses the token.

use serde_json::{Map, Value};

use super::{Bound, Holder};

/// Clocks of the cluster and of this machine may differ by so much, in seconds.
const LEEWAY: u64 = 10;

/// What a token must say.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audiences: &'a [String],
    pub(super) now: u64,
}

/// Judges the claims of a token whose signature is good.
pub(super) fn judge(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<Holder, &'static str> {
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return Err("token-issuer");
    }
    if !audience(claims.get("aud"), expected.audiences) {
        return Err("token-audience");
    }
    // A token without an end is a password for ever: Kubernetes' old secrets are of that kind.
    let expires = seconds(claims.get("exp")).ok_or("token-without-end")?;
    if expires.saturating_add(LEEWAY) <= expected.now {
        return Err("token-expired");
    }
    let begins = match claims.get("nbf") {
        None => 0,
        begins => seconds(begins).ok_or("token-malformed")?,
    };
    if begins > expected.now.saturating_add(LEEWAY) {
        return Err("token-not-yet-valid");
    }
    let subject = claims.get("sub").and_then(Value::as_str).and_then(account).ok_or("token-subject")?;
    let (namespace, service_account) = subject;
    let (pod, node) = bound(claims.get("kubernetes.io"), namespace, service_account)?;
    let (namespace, service_account) = (namespace.to_owned(), service_account.to_owned());
    Ok(Holder { namespace, service_account, pod, node, expires })
}

/// `aud` is a text or a list of texts (RFC 7519, 4.1.3).
fn audience(claim: Option<&Value>, accepted: &[String]) -> bool {
    let fits = |value: &Value| value.as_str().is_some_and(|text| accepted.iter().any(|one| one == text));
    match claim {
        Some(Value::Array(values)) => values.iter().any(fits),
        Some(value) => fits(value),
        None => false,
    }
}

/// A NumericDate; fractions are cut off.
fn seconds(claim: Option<&Value>) -> Option<u64> {
    let value = claim?;
    value.as_u64().or_else(|| value.as_f64().filter(|date| (0.0..1e15).contains(date)).map(|date| date as u64))
}

/// Namespace and name out of exactly `system:serviceaccount:<namespace>:<name>`.
pub(super) fn account(subject: &str) -> Option<(&str, &str)> {
    let mut parts = subject.split(':');
    let found = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    match found {
        ("system", "serviceaccount", namespace, name)
            if parts.next().is_none() && label(namespace) && namespace.len() <= 63 && subdomain(name) =>
        {
            Some((namespace, name))
        }
        _ => None,
    }
}

/// A DNS-1123 label of any length.
fn label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS-1123 subdomain.
fn subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(label)
}

type Objects = (Option<Bound>, Option<Bound>);

/// Pod and node of the private claim, which must agree with the subject where it is present.
fn bound(claim: Option<&Value>, namespace: &str, service_account: &str) -> Result<Objects, &'static str> {
    let Some(claim) = claim else { return Ok((None, None)) };
    let agrees = |found: Option<&Value>, expected: &str| found.is_none_or(|value| value.as_str() == Some(expected));
    let account = claim.get("serviceaccount").and_then(|account| account.get("name"));
    if !claim.is_object() || !agrees(claim.get("namespace"), namespace) || !agrees(account, service_account) {
        return Err("token-claims-disagree");
    }
    Ok((object(claim.get("pod"))?, object(claim.get("node"))?))
}

fn object(claim: Option<&Value>) -> Result<Option<Bound>, &'static str> {
    let Some(claim) = claim.filter(|claim| !claim.is_null()) else { return Ok(None) };
    let name = claim.get("name").and_then(Value::as_str).filter(|name| subdomain(name)).ok_or("token-malformed")?;
    let uid = claim.get("uid").and_then(Value::as_str).unwrap_or_default();
    Ok(Some(Bound { name: name.to_owned(), uid: uid.to_owned() }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn good() -> Value {
        json!({
            "iss": "https://kubernetes.default.svc", "aud": ["istio-ca"], "exp": NOW + 600, "nbf": NOW, "iat": NOW,
            "sub": "system:serviceaccount:shop:web",
            "kubernetes.io": {
                "namespace": "shop", "serviceaccount": {"name": "web", "uid": "u1"},
                "pod": {"name": "web-0", "uid": "u2"}, "node": {"name": "worker-1", "uid": "u3"},
            },
        })
    }

    fn outcome(change: impl FnOnce(&mut Value)) -> Result<Holder, &'static str> {
        let mut claims = good();
        change(&mut claims);
        let audiences = ["istio-ca".to_owned(), "palisade".to_owned()];
        let expected = Expected { issuer: "https://kubernetes.default.svc", audiences: &audiences, now: NOW };
        judge(claims.as_object().unwrap(), &expected)
    }

    #[test]
    fn a_good_token_names_account_pod_and_node() {
        let holder = outcome(|_| ()).unwrap();
        assert_eq!((holder.namespace.as_str(), holder.service_account.as_str()), ("shop", "web"));
        assert_eq!(holder.pod, Some(Bound { name: "web-0".into(), uid: "u2".into() }));
        assert_eq!(holder.node.as_ref().map(|node| node.name.as_str()), Some("worker-1"));
        assert_eq!(outcome(|claims| claims["aud"] = json!("palisade")).unwrap().expires, NOW + 600);
        let bare = outcome(|claims| drop(claims.as_object_mut().unwrap().remove("kubernetes.io"))).unwrap();
        assert_eq!((bare.pod, bare.node), (None, None));
        assert_eq!(outcome(|claims| claims["kubernetes.io"]["node"] = Value::Null).unwrap().node, None);
    }

    #[test]
    fn trap_41_a_subject_has_exactly_four_parts() {
        for subject in [
            "",
            "system:serviceaccount",
            "system:serviceaccount:shop",
            "system:serviceaccount:shop:",
            "system:serviceaccount::web",
            "system:serviceaccount:shop:web:extra",
            "system:serviceaccount:shop:web:",
            "System:serviceaccount:shop:web",
            "system:user:shop:web",
            "system:serviceaccount:Shop:web",
            "system:serviceaccount:shop:we/b",
            "system:serviceaccount:..:web",
            "system:serviceaccount:shop:..",
            " system:serviceaccount:shop:web",
            "system:serviceaccount:sh.op:web",
            "system:serviceaccount:shop:web\0",
        ] {
            assert_eq!(outcome(|claims| claims["sub"] = json!(subject)), Err("token-subject"), "{subject:?}");
        }
        assert_eq!(outcome(|claims| claims["sub"] = json!(["system:serviceaccount:shop:web"])), Err("token-subject"));
        assert_eq!(account("system:serviceaccount:shop:a.b"), Some(("shop", "a.b")));
    }

    #[test]
    fn trap_41_44_a_token_for_somebody_else_is_refused() {
        for audience in [json!("istio"), json!([]), json!(["other"]), json!(7), json!({"istio-ca": 1}), Value::Null] {
            assert_eq!(outcome(|claims| claims["aud"] = audience), Err("token-audience"));
        }
        for issuer in [json!("https://kubernetes.default.svc/"), json!(""), Value::Null] {
            assert_eq!(outcome(|claims| claims["iss"] = issuer), Err("token-issuer"));
        }
    }

    #[test]
    fn dates_are_checked_with_a_small_leeway() {
        assert!(outcome(|claims| claims["exp"] = json!(NOW - 9)).is_ok());
        assert_eq!(outcome(|claims| claims["exp"] = json!(NOW - 10)), Err("token-expired"));
        assert!(outcome(|claims| claims["nbf"] = json!(NOW + 10)).is_ok());
        assert_eq!(outcome(|claims| claims["nbf"] = json!(NOW + 11)), Err("token-not-yet-valid"));
        assert_eq!(outcome(|claims| drop(claims.as_object_mut().unwrap().remove("exp"))), Err("token-without-end"));
        for odd in [json!("1800000600"), json!(-1), json!(f64::MAX), Value::Null] {
            assert_eq!(outcome(|claims| claims["exp"] = odd), Err("token-without-end"));
        }
    }

    #[test]
    fn claims_that_disagree_are_refused() {
        assert_eq!(
            outcome(|claims| claims["kubernetes.io"]["namespace"] = json!("bank")),
            Err("token-claims-disagree")
        );
        let other = outcome(|claims| claims["kubernetes.io"]["serviceaccount"]["name"] = json!("admin"));
        assert_eq!(other, Err("token-claims-disagree"));
        assert_eq!(outcome(|claims| claims["kubernetes.io"] = json!("shop")), Err("token-claims-disagree"));
        assert_eq!(outcome(|claims| claims["kubernetes.io"]["node"]["name"] = json!("a b")), Err("token-malformed"));
        assert_eq!(outcome(|claims| claims["kubernetes.io"]["pod"] = json!("web-0")), Err("token-malformed"));
    }
}
