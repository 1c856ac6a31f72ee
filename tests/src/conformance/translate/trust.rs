//! Trust domain aliases: a principal that names the mesh stands for the mesh under each of its names.

/// The principals that stand for `principals` in a mesh with these trust domains.
pub(super) fn principals(principals: &[String], trust_domains: &[String]) -> Vec<String> {
    principals.iter().flat_map(|principal| replaced(principal, trust_domains)).collect()
}

fn replaced(principal: &str, trust_domains: &[String]) -> Vec<String> {
    let parts: Vec<&str> = principal.split('/').collect();
    let unchanged = || vec![principal.to_owned()];
    let [own, rest @ ..] = parts.as_slice() else { return unchanged() };
    let known = || trust_domains.iter().any(|other| alike(own, other));
    if rest.len() != 4 || *own == "*" || !(*own == "cluster.local" || known()) {
        return unchanged();
    }
    let mut result: Vec<String> = Vec::new();
    for other in trust_domains {
        let text = if ends_like(other, own) { principal.to_owned() } else { format!("{other}/{}", rest.join("/")) };
        if !result.contains(&text) {
            result.push(text);
        }
    }
    result
}

/// Whether one of the two texts is the other, or a pattern that covers it.
fn alike(own: &str, other: &str) -> bool {
    own == other
        || other == "*"
        || begins_like(own, other)
        || begins_like(other, own)
        || ends_like(own, other)
        || ends_like(other, own)
}

fn begins_like(text: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|prefix| text.starts_with(prefix))
}

fn ends_like(text: &str, pattern: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
}

/// The values of a trust domain list: one that is a name of the mesh stands for all of them.
pub(super) fn domains(values: &[String], trust_domains: &[String]) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    for value in values {
        let own = std::slice::from_ref(value);
        for name in if trust_domains.contains(value) { trust_domains } else { own } {
            if !result.contains(name) {
                result.push(name.clone());
            }
        }
    }
    result
}
