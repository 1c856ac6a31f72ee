//! Reading the mesh configuration. Istio's other keys steer proxies and telemetry that are not ours: they are named
//! in warnings, so that nobody believes in a setting that does nothing.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use palisade_identity::TrustDomain;

use super::{MeshConfig, PathNormalization, providers};
use crate::{
    Diagnostic, SourceText,
    catalogue::{mesh as codes, reading, shape, unsupported},
    load::{
        MAX_TEXT_BYTES,
        cursor::{Cx, Object, Path, quote},
        names,
    },
    yaml::{self, Node, Pos},
};

/// Istio's keys that nothing here depends on (`istio.mesh.v1alpha1.MeshConfig`).
const UNUSED: &[&str] = &[
    "proxyListenPort",
    "proxyInboundListenPort",
    "proxyHttpPort",
    "connectTimeout",
    "hboneIdleTimeout",
    "protocolDetectionTimeout",
    "tcpKeepalive",
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "enableTracing",
    "accessLogFile",
    "accessLogFormat",
    "accessLogEncoding",
    "enableEnvoyAccessLogService",
    "disableEnvoyListenerLog",
    "defaultConfig",
    "outboundTrafficPolicy",
    "inboundTrafficPolicy",
    "configSources",
    "enableAutoMtls",
    "caCertificates",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "defaultDestinationRuleExportTo",
    "localityLbSetting",
    "zoneAwareLbSetting",
    "dnsRefreshRate",
    "h2UpgradePolicy",
    "inboundClusterStatName",
    "outboundClusterStatName",
    "certificates",
    "serviceSettings",
    "serviceScopeConfigs",
    "enablePrometheusMerge",
    "verifyCertificateAtClient",
    "ca",
    "defaultProviders",
    "discoverySelectors",
    "defaultHttpRetryPolicy",
    "meshMTLS",
    "tlsDefaults",
    "defaultTrafficPolicy",
    "serviceEntryVisibility",
];

/// The keys that are used, and our own section.
const USED: &[&str] =
    &["trustDomain", "trustDomainAliases", "rootNamespace", "pathNormalization", "extensionProviders", "palisade"];

impl MeshConfig {
    /// Reads Istio's MeshConfig as plain YAML. The configuration is `None` if something is wrong with it; warnings
    /// come beside a good one. An empty text is Istio's default.
    #[must_use]
    pub fn parse(text: &SourceText) -> (Option<Self>, Vec<Diagnostic>) {
        let mut cx = Cx::new(Arc::clone(&text.file));
        let config = match root(&mut cx, text) {
            Some(Some(root)) => read(&mut cx, &root),
            Some(None) => Self::default(),
            None => return (None, cx.findings),
        };
        cx.findings.sort_by_key(|finding| (finding.line, finding.column));
        ((cx.errors == 0).then_some(config), cx.findings)
    }
}

/// The one document of a file of settings: `None` if it cannot be read, `Some(None)` if nothing is written.
pub(crate) fn root(cx: &mut Cx, text: &SourceText) -> Option<Option<Node>> {
    let mut pos = Pos { line: text.first_line, column: 1, index: 0 };
    if text.text.len() > MAX_TEXT_BYTES {
        let message = format!("{} bytes, at most {MAX_TEXT_BYTES} are read", text.text.len());
        cx.report(&reading::TOO_LARGE, pos, &Path::Root, message);
        return None;
    }
    let mut found = None;
    for chunk in yaml::split(&text.text) {
        let tree = match yaml::parse(chunk, text.first_line) {
            Ok(tree) => tree.map(|tree| tree.root).filter(|root| !root.is_null()),
            Err(fault) => {
                cx.report(fault.what, fault.pos, &Path::Root, fault.message);
                return None;
            }
        };
        if let (Some(_), Some(second)) = (&found, &tree) {
            pos = second.pos;
            cx.report(&reading::TOO_MANY_DOCUMENTS, pos, &Path::Root, "settings are one document".to_owned());
            return None;
        }
        found = found.or(tree);
    }
    Some(found)
}

fn read(cx: &mut Cx, root: &Node) -> MeshConfig {
    let mut config = MeshConfig::default();
    let known: Vec<&str> = USED.iter().chain(UNUSED).copied().collect();
    let Some(object) = cx.object(root, &Path::Root, &known) else { return config };
    for entry in object.entries.iter().filter(|entry| UNUSED.contains(&entry.key.text.as_str())) {
        let message = format!("`{}` is accepted and not used", entry.key.text);
        cx.report(&codes::UNUSED_KEY, entry.pos, &Path::Root.key(&entry.key.text), message);
    }
    if let Some(domain) = trust_domain(cx, &object) {
        config.trust_domain = domain;
    }
    config.trust_domain_aliases = aliases(cx, &object);
    if let Some(namespace) = root_namespace(cx, &object) {
        config.root_namespace = namespace;
    }
    if let Some(normalization) = path_normalization(cx, &object) {
        config.path_normalization = normalization;
    }
    config.extension_providers = providers::read(cx, &object);
    config.jwks_allow = palisade(cx, &object);
    config
}

fn trust_domain(cx: &mut Cx, object: &Object<'_>) -> Option<TrustDomain> {
    let node = object.get("trustDomain")?;
    let path = Path::Root.key("trustDomain");
    let text = cx.value(node, &path, usize::MAX)?;
    let domain = TrustDomain::parse(text).ok();
    if domain.is_none() {
        cx.report(&codes::BAD_MESH_DOMAIN, node.pos, &path, format!("`{}` is not a trust domain", quote(text)));
    }
    domain
}

/// Aliases may be patterns with a `*` at one end.
fn aliases(cx: &mut Cx, object: &Object<'_>) -> Vec<String> {
    let Some(node) = object.get("trustDomainAliases") else { return Vec::new() };
    let path = Path::Root.key("trustDomainAliases");
    let mut aliases = Vec::new();
    for (index, item) in cx.list(node, &path, usize::MAX).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, usize::MAX) else { continue };
        let plain = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
        if TrustDomain::parse(plain).is_err() && text != "*" {
            cx.report(&codes::BAD_MESH_DOMAIN, item.pos, &path, format!("`{}` is not a trust domain", quote(text)));
        }
        aliases.push(text.to_owned());
    }
    aliases
}

fn root_namespace(cx: &mut Cx, object: &Object<'_>) -> Option<String> {
    let node = object.get("rootNamespace")?;
    let path = Path::Root.key("rootNamespace");
    let text = cx.value(node, &path, usize::MAX)?;
    if !names::dns_label(text) {
        cx.report(&shape::BAD_NAMESPACE, node.pos, &path, format!("`{}` is not a valid namespace", quote(text)));
    }
    Some(text.to_owned())
}

fn path_normalization(cx: &mut Cx, object: &Object<'_>) -> Option<PathNormalization> {
    let path = Path::Root.key("pathNormalization");
    let object = cx.object(object.get("pathNormalization")?, &path, &["normalization"])?;
    let known = [
        ("DEFAULT", PathNormalization::Base),
        ("NONE", PathNormalization::None),
        ("BASE", PathNormalization::Base),
        ("MERGE_SLASHES", PathNormalization::MergeSlashes),
        ("DECODE_AND_MERGE_SLASHES", PathNormalization::DecodeAndMergeSlashes),
    ];
    cx.choice(object.get("normalization")?, &path.key("normalization"), &known)
}

/// Our own section.
fn palisade(cx: &mut Cx, object: &Object<'_>) -> Vec<IpNet> {
    let Some(node) = object.get("palisade") else { return Vec::new() };
    let path = Path::Root.key("palisade");
    let Some(object) = cx.object(node, &path, &["ambiguousRequests", "jwksAllow"]) else { return Vec::new() };
    if let Some(entry) = object.entry("ambiguousRequests") {
        let message = "`ambiguousRequests` is not supported yet".to_owned();
        cx.report(&unsupported::MESH_KEY, entry.pos, &path.key("ambiguousRequests"), message);
    }
    jwks_allow(cx, &object, &path)
}

/// Networks, or single addresses.
fn jwks_allow(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Vec<IpNet> {
    let Some(node) = object.get("jwksAllow") else { return Vec::new() };
    let path = path.key("jwksAllow");
    let mut networks = Vec::new();
    for (index, item) in cx.list(node, &path, usize::MAX).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, usize::MAX) else { continue };
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network.trunc()),
            Err(_) => {
                let message = format!("`{}` is not a network", quote(text));
                cx.report(&codes::BAD_JWKS_ALLOW, item.pos, &path, message);
            }
        }
    }
    networks
}
