//! What every resource has in common: its name, its labels and where it was written; and the selector by which
//! policies pick workloads.

use std::{collections::BTreeMap, fmt};

use crate::Origin;

/// The part of Kubernetes' object metadata that decides anything here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The resource's name: a DNS-1123 subdomain of at most 253 characters.
    pub name: String,
    /// Its namespace: a DNS-1123 label; the loader's default where the document names none.
    pub namespace: String,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// `creationTimestamp` in RFC 3339 at UTC (`2026-01-02T03:04:05Z`), where the document carries one. The text
    /// sorts by time.
    pub created: Option<String>,
    /// The line at which the document's first key stands.
    pub origin: Origin,
}

impl Meta {
    /// The order of age that Istio uses: creation timestamp, then name, then namespace
    /// (`configCompareByCreationTime`). Resources without a timestamp come first, ordered by name.
    pub(crate) fn age_key(&self) -> (Option<&str>, &str, &str) {
        (self.created.as_deref(), &self.name, &self.namespace)
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A set of label pairs that all have to be on the workload. An empty selector matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(BTreeMap<String, String>);

impl Selector {
    /// A selector of these pairs.
    #[must_use]
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self(labels)
    }

    /// Whether every pair of the selector stands on a workload with these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The pairs.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether it has no pair, so that it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
