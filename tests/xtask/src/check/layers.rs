//! A crate depends only on lower layers.

use cargo_metadata::{DependencyKind, Metadata};

/// The layers of the house, lowest first. Services of one layer meet on the wire, never by import.
const LAYERS: &[&[&str]] = &[
    &["palisade-identity"],
    &["palisade-policies", "palisade-wire"],
    &["palisade-authz", "palisade-audit", "palisade-watch"],
    &["palisade-workbench"],
    &["palisade-authz-service", "palisade-ca", "palisade-sds", "palisade-control", "palisade-proxy"],
    &["palisade"],
    &["palisade-tests"],
];

/// Stands beside the house and imports none of it.
const OUTSIDE: &[&str] = &["xtask"];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|crates| crates.contains(&name))
}

/// Edges that do not point down, and crates that no layer knows.
pub(crate) fn findings(metadata: &Metadata) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let inner = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some() && dependency.kind != DependencyKind::Development);
        findings.extend(judge(name, inner.map(|dependency| dependency.name.as_str())));
    }
    findings
}

fn judge<'a>(name: &str, dependencies: impl Iterator<Item = &'a str>) -> Vec<String> {
    let Some(own) = layer(name) else {
        let known = OUTSIDE.contains(&name);
        return dependencies
            .map(|dependency| format!("`{name}` stands outside the layers but depends on `{dependency}`"))
            .chain((!known).then(|| format!("`{name}` is in no layer: add it to tests/xtask/src/check/layers.rs")))
            .collect();
    };
    dependencies
        .filter_map(|dependency| match layer(dependency) {
            Some(other) if other < own => None,
            Some(other) => Some(format!(
                "`{name}` (layer {own}) depends on `{dependency}` (layer {other}): edges point to a lower layer only"
            )),
            None => Some(format!("`{name}` depends on `{dependency}`, which is in no layer")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_downward_edge_is_in_order() {
        assert!(judge("palisade-proxy", ["palisade-authz", "palisade-identity"].into_iter()).is_empty());
    }

    #[test]
    fn an_upward_or_sideways_edge_names_both_crates() {
        let up = judge("palisade-identity", ["palisade-wire"].into_iter());
        assert_eq!(up.len(), 1);
        assert!(up[0].contains("`palisade-identity` (layer 0) depends on `palisade-wire` (layer 1)"), "{up:?}");
        assert_eq!(judge("palisade-ca", ["palisade-sds"].into_iter()).len(), 1);
    }

    #[test]
    fn an_unknown_crate_is_a_finding() {
        assert_eq!(judge("palisade-new", std::iter::empty()).len(), 1);
    }
}
