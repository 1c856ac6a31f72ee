//! Registration entries: which workload gets which identity. A resource of our own (`palisade.dev/v1`), with the fields that
//! SPIRE's users know.
//!
//! The same rules hold for an entry in a file and for one that comes by the administration API, so they stand here as
//! functions of single values; the loader adds file, line and field.

use std::time::Duration;

use palisade_identity::{SpiffeId, TrustDomain};

use crate::{
    Diagnostic, Document, Meta, Places, Resources,
    catalogue::registration as codes,
    load::{duration, names},
};

/// The API group of our own resources.
pub const PALISADE_GROUP: &str = "palisade.dev";

/// The kind of a registration entry.
pub const REGISTRATION_ENTRY: &str = "RegistrationEntry";

/// How many selectors, DNS names or trust domains one entry may have.
pub const MAX_REGISTRATION_ITEMS: usize = 64;

/// How long a selector or a hint may be, in characters.
pub const MAX_REGISTRATION_TEXT: usize = 1024;

/// Namespace and service account of the server's own ID, which no entry gives away.
pub const SERVER_ACCOUNT: (&str, &str) = ("palisade-system", "palisade");

/// By these names clients expect the server: on this machine, and under Istio's and our own service names. No entry has them.
pub const SERVER_DNS_NAMES: [&str; 3] = ["localhost", "istiod.istio-system.svc", "palisade.palisade-system.svc"];

/// An accepted RegistrationEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationEntry {
    /// Name, namespace, labels, annotations and position. The namespace only groups names.
    pub meta: Meta,
    /// The identity that the workload gets; it has a path.
    pub spiffe_id: SpiffeId,
    /// The agent that serves it to its workloads; `None`: for who proves himself to the server.
    pub parent_id: Option<SpiffeId>,
    /// `kind:value` texts, sorted, each once, at least one: all of them must be among the workload's.
    pub selectors: Vec<String>,
    /// Lifetime of its certificates, whole seconds; `None`: the server's default.
    pub x509_ttl: Option<Duration>,
    /// Lifetime of its tokens, whole seconds; `None`: the server's default.
    pub jwt_ttl: Option<Duration>,
    /// DNS names that its certificates carry, in lower case.
    pub dns_names: Vec<String>,
    /// Foreign trust domains whose bundles the workload gets.
    pub federates_with: Vec<TrustDomain>,
    /// What tells several identities of one workload apart; may be empty.
    pub hint: String,
}

/// An ID that an entry can name, or what is wrong with the text.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the text.
pub fn registration_id(text: &str) -> Result<SpiffeId, String> {
    let id = SpiffeId::parse(text).map_err(|error| format!("is not a SPIFFE ID: {error}"))?;
    if id.path().is_empty() {
        return Err("names a trust domain and no workload of it".to_owned());
    }
    if id.namespace_and_service_account() == Some(SERVER_ACCOUNT) {
        return Err("is the server's own: clients recognise it by that".to_owned());
    }
    Ok(id)
}

/// A selector: a kind of lower-case letters, digits, `_` and `-`, a colon, and a value.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the text.
pub fn registration_selector(text: &str) -> Result<(), &'static str> {
    let Some((kind, value)) = text.split_once(':') else { return Err("has no colon between kind and value") };
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if kind.is_empty() || !kind.bytes().all(word) {
        return Err("does not begin with a kind in lower case, such as `unix:`");
    }
    if value.is_empty() || value.ends_with(':') {
        return Err("has no value");
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    let number = value.strip_prefix("uid:").or_else(|| value.strip_prefix("gid:")).filter(|_| kind == "unix");
    if number.is_some_and(|number| number.parse::<u32>().map_or(true, |parsed| parsed.to_string() != number)) {
        return Err("does not end with a number as the kernel has it, from 0 to 4294967295 (`unix:user:` takes names)");
    }
    Ok(())
}

/// A lifetime of whole seconds, at least one (`90s`, `1h`).
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the text.
pub fn registration_ttl(text: &str) -> Result<Duration, &'static str> {
    let ttl = duration::parse(text).ok_or("is not a duration")?;
    if ttl.is_zero() || ttl.subsec_nanos() != 0 {
        return Err("is not a whole number of seconds, at least one");
    }
    Ok(ttl)
}

/// A DNS name without a wildcard, in lower case.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the text.
pub fn registration_dns_name(text: &str) -> Result<String, &'static str> {
    if text.starts_with("*.") {
        return Err("is a wildcard, and a workload has names of its own");
    }
    if !names::fqdn(text) || text.ends_with('.') || text.len() > 253 {
        return Err("is not a DNS name");
    }
    let name = text.to_ascii_lowercase();
    if SERVER_DNS_NAMES.contains(&&*name) {
        return Err("is the server's own: clients recognise it by that");
    }
    Ok(name)
}

/// Entries that name another trust domain than certificates are issued in: one error each, at its place.
#[must_use]
pub fn foreign_registrations(resources: &Resources, documents: &[Document], issued: &TrustDomain) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for entry in &resources.registration_entries {
        let ids = [("spec.spiffeId", Some(&entry.spiffe_id)), ("spec.parentId", entry.parent_id.as_ref())];
        let foreign =
            ids.into_iter().find_map(|(field, id)| Some((field, id?)).filter(|(_, id)| id.trust_domain() != *issued));
        if let Some((field, id)) = foreign {
            let document = documents.iter().find(|document| {
                let named = (document.kind, &document.namespace, &document.name);
                named == (REGISTRATION_ENTRY, &entry.meta.namespace, &entry.meta.name)
            });
            let place = document.map(|document| Places::of(&document.text).place(field));
            let (line, column) = place.unwrap_or((entry.meta.origin.line, 1));
            found.push(Diagnostic {
                code: codes::FOREIGN_ID.code,
                severity: codes::FOREIGN_ID.severity,
                file: entry.meta.origin.file.clone(),
                line,
                column,
                field: field.to_owned(),
                message: format!("`{id}` is not of the trust domain `{issued}`"),
                fix: codes::FOREIGN_ID.fix.to_owned(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_have_a_kind_and_a_value() {
        for good in
            ["unix:uid:1000", "k8s:ns:shop", "unix:path:/usr/bin/a b", "x509pop:subject:cn:db 1", "docker:label:a=b:c"]
        {
            assert_eq!(registration_selector(good), Ok(()), "{good}");
        }
        for good in ["unix:uid:0", "unix:gid:4294967295", "unix:user:00", "other:uid:00"] {
            assert_eq!(registration_selector(good), Ok(()), "{good}");
        }
        for bad in ["unix:uid:00", "unix:uid:+1", "unix:gid:root", "unix:uid:4294967296"] {
            assert!(registration_selector(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "unix", ":uid", "unix:", "Unix:uid:0", "unix uid:0", "unix:uid:", "unix:path:/a\nunix:uid:0"] {
            assert!(registration_selector(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_and_lifetimes_are_what_a_certificate_can_carry() {
        assert_eq!(registration_dns_name("Pay.Shop"), Ok("pay.shop".to_owned()));
        for bad in ["", "*.shop", "pay.shop.", "10.0.0.1", "a b", "pay..shop", "pay_ments.shop", "a,b", "LocalHost"] {
            assert!(registration_dns_name(bad).is_err(), "{bad}");
        }
        assert_eq!(registration_ttl("1h30m"), Ok(Duration::from_secs(5_400)));
        for bad in ["", "0s", "1.5s", "-1s", "3600", "10ms"] {
            assert!(registration_ttl(bad).is_err(), "{bad}");
        }
        assert!(registration_id("spiffe://cluster.local/a").is_ok());
        let own = "spiffe://cluster.local/ns/palisade-system/sa/palisade";
        for bad in ["spiffe://cluster.local", "spiffe://Cluster.local/a", "cluster.local/a", "spiffe://a.test/x/", own]
        {
            assert!(registration_id(bad).is_err(), "{bad}");
        }
    }
}
