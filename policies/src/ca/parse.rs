//! Reading `ca.yaml`. Every key is known or refused: a misspelt one would leave an attestor stricter, or a limit looser, than
//! its author believes.

use std::{num::NonZeroU32, sync::Arc};

use palisade_identity::{SpiffeId, TrustDomain};

use super::{AdmissionSettings, CaSettings, ExtraKey, KubernetesSettings, SettingsSource, X509PopSettings};
use crate::{
    Diagnostic, SourceText,
    catalogue::ca as codes,
    load::cursor::{Cx, Object, Path, quote},
    mesh::parse::root,
    yaml::Node,
};

/// Istio's audience of tokens for the CA.
const DEFAULT_AUDIENCE: &str = "istio-ca";
const MAX_ITEMS: usize = 256;

impl CaSettings {
    /// Reads the settings. They are `None` if something is wrong with them; an empty text is the default.
    #[must_use]
    pub fn parse(text: &SourceText) -> (Option<Self>, Vec<Diagnostic>) {
        let mut cx = Cx::new(Arc::clone(&text.file));
        let settings = match root(&mut cx, text) {
            Some(Some(root)) => read(&mut cx, &root),
            Some(None) => Some(Self::default()),
            None => None,
        };
        cx.findings.sort_by_key(|finding| (finding.line, finding.column));
        (settings.filter(|_| cx.errors == 0), cx.findings)
    }
}

fn read(cx: &mut Cx, root: &Node) -> Option<CaSettings> {
    let object = cx.object(root, &Path::Root, &["extraKeys", "attestors", "admission"])?;
    let extra_keys = extra_keys(cx, &object);
    let path = Path::Root.key("attestors");
    let attestors = object.get("attestors").and_then(|node| cx.object(node, &path, &["kubernetes", "x509pop"]));
    let kubernetes = attestors.and_then(|attestors| attestors.get("kubernetes"));
    let x509pop = attestors.and_then(|attestors| attestors.get("x509pop"));
    Some(CaSettings {
        extra_keys,
        kubernetes: kubernetes.and_then(|node| read_kubernetes(cx, node, &path.key("kubernetes"))),
        x509pop: x509pop.and_then(|node| read_x509pop(cx, node, &path.key("x509pop"))),
        admission: admission(cx, &object),
    })
}

fn extra_keys(cx: &mut Cx, object: &Object<'_>) -> Vec<ExtraKey> {
    let Some(node) = object.get("extraKeys") else { return Vec::new() };
    let path = Path::Root.key("extraKeys");
    let known = [("Ed25519", ExtraKey::Ed25519), ("P-521", ExtraKey::P521)];
    let items = cx.list(node, &path, MAX_ITEMS).unwrap_or_default().iter().enumerate();
    items.filter_map(|(index, item)| cx.choice(item, &path.index(index), &known)).collect()
}

fn read_kubernetes(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<KubernetesSettings> {
    let object = cx.object(node, path, &["issuer", "jwks", "audiences", "trustedNodeAccounts"])?;
    let issuer = required(cx, &object, path, "issuer");
    let jwks = required(cx, &object, path, "jwks");
    let jwks = jwks.and_then(|(text, node)| source(cx, text, node, &path.key("jwks")));
    let audiences = match object.get("audiences") {
        Some(node) => audiences(cx, node, &path.key("audiences")),
        None => vec![DEFAULT_AUDIENCE.to_owned()],
    };
    let trusted_node_accounts = accounts(cx, &object, path);
    Some(KubernetesSettings { issuer: issuer?.0.to_owned(), jwks: jwks?, audiences, trusted_node_accounts })
}

fn required<'n>(cx: &mut Cx, object: &Object<'n>, path: &Path<'_>, field: &str) -> Option<(&'n str, &'n Node)> {
    let Some(node) = object.get(field) else {
        cx.missing(object.pos, path, field);
        return None;
    };
    Some((cx.value(node, &path.key(field), 4096)?, node))
}

fn audiences(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Vec<String> {
    let audiences = cx.values(node, path, MAX_ITEMS);
    // Without an audience every token of the cluster would do, whomever it was made for.
    if matches!(&node.value, crate::yaml::Value::Seq(items) if items.is_empty()) {
        cx.report(&codes::NO_AUDIENCE, node.pos, path, "no audience is written".to_owned());
    }
    audiences
}

fn source(cx: &mut Cx, text: &str, node: &Node, path: &Path<'_>) -> Option<SettingsSource> {
    let Some((scheme, rest)) = text.split_once("://") else { return Some(SettingsSource::File(text.to_owned())) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let wrong = match scheme {
        "http" | "https" if authority.is_empty() => "has no host",
        "http" | "https" if authority.contains('@') => "holds credentials",
        "http" | "https" => return Some(SettingsSource::Url(text.to_owned())),
        _ => "is neither a path nor an http or https URL",
    };
    // A password is not repeated.
    let shown = if authority.contains('@') { "the URL".to_owned() } else { format!("`{}`", quote(text)) };
    cx.report(&codes::BAD_SOURCE, node.pos, path, format!("{shown} {wrong}"));
    None
}

/// `namespace/name`, as Istio's `CA_TRUSTED_NODE_ACCOUNTS` has them.
fn accounts(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Vec<(String, String)> {
    let Some(node) = object.get("trustedNodeAccounts") else { return Vec::new() };
    let (path, mut accounts) = (path.key("trustedNodeAccounts"), Vec::new());
    let Ok(domain) = TrustDomain::parse("cluster.local") else { return accounts };
    for (index, item) in cx.list(node, &path, MAX_ITEMS).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, 512) else { continue };
        match text.split_once('/').filter(|(ns, name)| SpiffeId::workload(&domain, ns, name).is_ok()) {
            Some((namespace, name)) => accounts.push((namespace.to_owned(), name.to_owned())),
            None => cx.report(
                &codes::BAD_ACCOUNT,
                item.pos,
                &path,
                format!("`{}` is not `namespace/serviceaccount`", quote(text)),
            ),
        }
    }
    accounts
}

fn read_x509pop(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<X509PopSettings> {
    let object = cx.object(node, path, &["ca"])?;
    let (ca, _) = required(cx, &object, path, "ca")?;
    Some(X509PopSettings { ca: ca.to_owned() })
}

fn admission(cx: &mut Cx, object: &Object<'_>) -> AdmissionSettings {
    let defaults = AdmissionSettings::default();
    let Some(node) = object.get("admission") else { return defaults };
    let path = Path::Root.key("admission");
    let Some(object) = cx.object(node, &path, &["rate", "burst", "waiting"]) else { return defaults };
    let mut number = |field: &str, default| match object.get(field) {
        Some(node) => cx.number(node, &path.key(field), 1, 1_000_000).and_then(NonZeroU32::new).unwrap_or(default),
        None => default,
    };
    AdmissionSettings {
        rate: number("rate", defaults.rate),
        burst: number("burst", defaults.burst),
        waiting: number("waiting", defaults.waiting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> CaSettings {
        let (settings, diagnostics) = CaSettings::parse(&SourceText::new("ca.yaml", text));
        assert_eq!(diagnostics, []);
        settings.unwrap()
    }

    #[test]
    fn everything_that_can_be_set() {
        let found = parse(
            "extraKeys: [Ed25519, P-521]\nattestors:\n  kubernetes:\n    issuer: https://kubernetes.default.svc\n    \
             jwks: keys.json\n    audiences: [istio-ca, palisade]\n    trustedNodeAccounts: [istio-system/ztunnel]\n  \
             x509pop: {ca: machines.pem}\nadmission: {rate: 10, burst: 20, waiting: 30}\n",
        );
        let kubernetes = found.kubernetes.unwrap();
        assert_eq!(found.extra_keys, [ExtraKey::Ed25519, ExtraKey::P521]);
        assert_eq!(kubernetes.jwks, SettingsSource::File("keys.json".into()));
        assert_eq!(kubernetes.audiences, ["istio-ca", "palisade"]);
        assert_eq!(kubernetes.trusted_node_accounts, [("istio-system".to_owned(), "ztunnel".to_owned())]);
        assert_eq!(found.x509pop, Some(X509PopSettings { ca: "machines.pem".into() }));
        assert_eq!((found.admission.rate.get(), found.admission.waiting.get()), (10, 30));
    }

    #[test]
    fn what_is_not_written_is_the_default() {
        assert_eq!(parse(""), CaSettings::default());
        assert_eq!(parse("# nothing\n"), CaSettings::default());
        let kubernetes = parse("attestors: {kubernetes: {issuer: x, jwks: 'https://keys.example/k?v=1'}}").kubernetes;
        let kubernetes = kubernetes.unwrap();
        assert_eq!(kubernetes.audiences, ["istio-ca"]);
        assert_eq!(kubernetes.jwks, SettingsSource::Url("https://keys.example/k?v=1".into()));
        assert_eq!(parse("admission: {burst: 5}").admission.rate, AdmissionSettings::default().rate);
    }
}
