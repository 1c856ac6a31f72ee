//! Trust-domain aliases: one principal in a policy stands for one per domain of the mesh (section 6).

use palisade_policies::MeshConfig;

/// The mesh's trust domain and its aliases, in that order.
#[derive(PartialEq)]
pub(crate) struct TrustDomains(Vec<String>);

impl TrustDomains {
    pub(super) fn new(mesh: &MeshConfig) -> Self {
        let own = mesh.trust_domain.as_str().to_owned();
        Self(std::iter::once(own).chain(mesh.trust_domain_aliases.iter().cloned()).collect())
    }

    /// `source.principal` values. Only five-part values are rewritten; `cluster.local` means "our own".
    pub(super) fn principals(&self, values: &[String]) -> Vec<String> {
        values.iter().flat_map(|value| self.principal(value)).collect()
    }

    fn principal(&self, value: &str) -> Vec<String> {
        let unchanged = || vec![value.to_owned()];
        let Some((domain, rest)) = value.split_once('/') else {
            return unchanged();
        };
        if rest.split('/').count() != 4 || domain == "*" {
            return unchanged();
        }
        if domain != "cluster.local" && !self.0.iter().any(|entry| related(domain, entry)) {
            return unchanged();
        }
        let mut expanded = Vec::new();
        for entry in &self.0 {
            let principal = if suffix(entry, domain) { value.to_owned() } else { format!("{entry}/{rest}") };
            if !expanded.contains(&principal) {
                expanded.push(principal);
            }
        }
        expanded
    }

    /// `source.trustDomain` values: a known domain stands for all of them; no wildcards, no `cluster.local`.
    pub(super) fn trust_domains(&self, values: &[String]) -> Vec<String> {
        let mut expanded: Vec<String> = Vec::new();
        for value in values {
            let all = if self.0.contains(value) { self.0.as_slice() } else { std::slice::from_ref(value) };
            for domain in all {
                if !expanded.contains(domain) {
                    expanded.push(domain.clone());
                }
            }
        }
        expanded
    }
}

/// Equal, or a wildcard on either side.
fn related(domain: &str, entry: &str) -> bool {
    domain == entry
        || entry == "*"
        || prefix(domain, entry)
        || prefix(entry, domain)
        || suffix(domain, entry)
        || suffix(entry, domain)
}

fn prefix(text: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|prefix| text.starts_with(prefix))
}

fn suffix(text: &str, pattern: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(domains: &[&str], value: &str) -> Vec<String> {
        TrustDomains(domains.iter().map(|domain| (*domain).to_owned()).collect()).principals(&[value.to_owned()])
    }

    #[test]
    fn five_part_principals_are_expanded() {
        assert_eq!(expand(&["new-td"], "cluster.local/ns/d/sa/s"), ["new-td/ns/d/sa/s"]);
        assert_eq!(expand(&["td2", "td1"], "td1/ns/d/sa/*"), ["td2/ns/d/sa/*", "td1/ns/d/sa/*"]);
        assert_eq!(expand(&["td2"], "cluster.local/ns/d/*"), ["cluster.local/ns/d/*"]);
        assert_eq!(expand(&["td2"], "*/ns/d/sa/s"), ["*/ns/d/sa/s"]);
        assert_eq!(expand(&["td2"], "other/ns/d/sa/s"), ["other/ns/d/sa/s"]);
        assert_eq!(expand(&["new-td", "old-td"], "*-td/ns/d/sa/s"), ["*-td/ns/d/sa/s"]);
        assert_eq!(expand(&["new-td", "other"], "*-td/ns/d/sa/s"), ["*-td/ns/d/sa/s", "other/ns/d/sa/s"]);
        assert_eq!(expand(&["td", "some*"], "something/ns/d/sa/s"), ["td/ns/d/sa/s", "some*/ns/d/sa/s"]);
    }

    #[test]
    fn trust_domain_values_expand_only_when_known() {
        let domains = TrustDomains(vec!["td1".into(), "td2".into()]);
        let values = |list: &[&str]| list.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        assert_eq!(domains.trust_domains(&values(&["td2", "x", "td1"])), ["td1", "td2", "x"]);
        assert_eq!(domains.trust_domains(&values(&["cluster.local", "td*"])), ["cluster.local", "td*"]);
    }
}
