//! Registration entries as the agent uses them: checked, and found by what a process shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use palisade_identity::{IdError, SpiffeId, TrustDomain};
use palisade_wire::agents;

/// Longest hint (SPIFFE Workload API).
const MAX_HINT: usize = 1024;

/// One registration: which processes are whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The server's name of it.
    pub(crate) id: String,
    pub(crate) spiffe_id: SpiffeId,
    /// All of them must be among the process' own. Never empty.
    pub(crate) selectors: BTreeSet<String>,
    /// Seconds; 0 is the server's default. The server grants lifetimes: they are here to notice a change.
    pub(crate) x509_ttl: i64,
    pub(crate) jwt_ttl: i64,
    pub(crate) dns_names: Vec<String>,
    pub(crate) hint: String,
    /// Names of trust domains whose bundles its processes get too.
    pub(crate) federates_with: BTreeSet<String>,
}

/// Why an entry cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    /// Its SPIFFE ID is none.
    #[error("`{0}` is not a SPIFFE ID")]
    Id(String, #[source] IdError),
    /// A trust domain's own ID can be no workload's.
    #[error("`{0}` has no path, so it names no workload")]
    NoPath(SpiffeId),
    /// Its ID is of another trust domain.
    #[error("`{0}` is of another trust domain than the agent")]
    Foreign(SpiffeId),
    /// Without selectors it would match every process.
    #[error("it has no selectors")]
    NoSelectors,
}

impl Entry {
    /// Checks what the server sent.
    pub(crate) fn parse(wire: agents::Entry, domain: &TrustDomain) -> Result<Self, EntryError> {
        let spiffe_id = match SpiffeId::parse(&wire.spiffe_id) {
            Ok(id) => id,
            Err(error) => return Err(EntryError::Id(wire.spiffe_id, error)),
        };
        if spiffe_id.trust_domain() != *domain {
            return Err(EntryError::Foreign(spiffe_id));
        }
        if spiffe_id.path().is_empty() {
            return Err(EntryError::NoPath(spiffe_id));
        }
        let selectors: BTreeSet<String> = wire.selectors.into_iter().collect();
        if selectors.is_empty() {
            return Err(EntryError::NoSelectors);
        }
        let name = |text: String| text.strip_prefix("spiffe://").map(str::to_owned).unwrap_or(text);
        let hint = if wire.hint.len() > MAX_HINT { String::new() } else { wire.hint };
        let federates_with = wire.federates_with.into_iter().map(name).collect();
        let (x509_ttl, jwt_ttl, dns_names) = (wire.x509_ttl, wire.jwt_ttl, wire.dns_names);
        Ok(Self { id: wire.id, spiffe_id, selectors, x509_ttl, jwt_ttl, dns_names, hint, federates_with })
    }

    /// As it is sent and stored.
    pub(crate) fn to_wire(&self) -> agents::Entry {
        agents::Entry {
            id: self.id.clone(),
            spiffe_id: self.spiffe_id.to_string(),
            selectors: self.selectors.iter().cloned().collect(),
            x509_ttl: self.x509_ttl,
            jwt_ttl: self.jwt_ttl,
            dns_names: self.dns_names.clone(),
            hint: self.hint.clone(),
            federates_with: self.federates_with.iter().cloned().collect(),
        }
    }

    /// Would a certificate made for `other` serve this entry as well?
    pub(crate) fn same_certificate(&self, other: &Self) -> bool {
        (&self.spiffe_id, self.x509_ttl, &self.dns_names) == (&other.spiffe_id, other.x509_ttl, &other.dns_names)
    }
}

/// All entries, in the server's order, each found by its rarest selector.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    by_id: BTreeMap<String, Arc<Entry>>,
    order: Vec<Arc<Entry>>,
    /// Positions in `order`.
    by_selector: HashMap<String, Vec<usize>>,
}

impl Entries {
    /// Of several entries with one name the first stays.
    pub(crate) fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut all = Self::default();
        for entry in entries.into_iter().map(Arc::new) {
            if !all.by_id.contains_key(&entry.id) {
                all.by_id.insert(entry.id.clone(), Arc::clone(&entry));
                all.order.push(entry);
            }
        }
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for selector in all.order.iter().flat_map(|entry| &entry.selectors) {
            *uses.entry(selector).or_default() += 1;
        }
        let mut index: HashMap<String, Vec<usize>> = HashMap::new();
        for (position, entry) in all.order.iter().enumerate() {
            let rarest = entry.selectors.iter().min_by_key(|selector| uses.get(selector.as_str()));
            index.entry(rarest.cloned().unwrap_or_default()).or_default().push(position);
        }
        all.by_selector = index;
        all
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.by_id.get(id)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Entry>> {
        self.order.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The entries of a process that shows these selectors, in the server's order.
    pub(crate) fn of(&self, shown: &BTreeSet<String>) -> Vec<&Arc<Entry>> {
        let found = shown.iter().filter_map(|selector| self.by_selector.get(selector)).flatten();
        let positions: BTreeSet<usize> = found.copied().collect();
        let candidates = positions.into_iter().filter_map(|position| self.order.get(position));
        candidates.filter(|entry| entry.selectors.is_subset(shown)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(id: &str, selectors: &[&str]) -> agents::Entry {
        agents::Entry {
            id: id.to_owned(),
            spiffe_id: format!("spiffe://a.test/{id}"),
            selectors: selectors.iter().map(|&selector| selector.to_owned()).collect(),
            federates_with: vec!["spiffe://b.test".to_owned(), "c.test".to_owned()],
            ..agents::Entry::default()
        }
    }

    fn parse(wire: agents::Entry) -> Result<Entry, EntryError> {
        Entry::parse(wire, &TrustDomain::parse("a.test").unwrap())
    }

    #[test]
    fn what_could_match_the_wrong_process_or_be_the_wrong_identity_is_refused() {
        let entry = parse(wire("x", &["unix:uid:1", "unix:uid:1"])).unwrap();
        assert_eq!((entry.selectors.len(), entry.federates_with.len()), (1, 2));
        assert!(entry.federates_with.contains("b.test"));
        assert_eq!(parse(entry.to_wire()).unwrap(), entry);
        assert!(matches!(parse(wire("x", &[])), Err(EntryError::NoSelectors)));
        for (id, text) in [
            ("spiffe://b.test/x", "another trust domain"),
            ("spiffe://a.test", "no workload"),
            ("x", "not a SPIFFE ID"),
        ] {
            let error = parse(agents::Entry { spiffe_id: id.to_owned(), ..wire("x", &["a:b"]) }).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn all_selectors_must_be_shown() {
        let list = [("u", &["unix:uid:1"][..]), ("both", &["unix:uid:1", "unix:path:/a"]), ("p", &["unix:path:/b"])];
        let entries = Entries::new(list.map(|(id, selectors)| parse(wire(id, selectors)).unwrap()));
        let of = |shown: &[&str]| -> Vec<String> {
            let shown = shown.iter().map(|&selector| selector.to_owned()).collect();
            entries.of(&shown).into_iter().map(|entry| entry.id.clone()).collect()
        };
        assert_eq!(of(&["unix:uid:1", "unix:path:/a", "x:y"]), ["u", "both"]);
        assert_eq!(of(&["unix:uid:1", "unix:path:/b"]), ["u", "p"]);
        assert!(of(&["unix:path:/a"]).is_empty() && of(&[]).is_empty());
    }
}
