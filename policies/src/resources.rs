//! What loading gives: the accepted resources, the documents they came from, and what was found.

use std::sync::Arc;

use crate::{
    AuthorizationPolicy, Diagnostic, PeerAuthentication, RegistrationEntry, RequestAuthentication, ServiceEntry,
    SourceText, WorkloadEntry,
};

/// Accepted resources, in the order in which they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// AuthorizationPolicies.
    pub authorization_policies: Vec<Arc<AuthorizationPolicy>>,
    /// RequestAuthentications.
    pub request_authentications: Vec<Arc<RequestAuthentication>>,
    /// PeerAuthentications.
    pub peer_authentications: Vec<Arc<PeerAuthentication>>,
    /// WorkloadEntries.
    pub workload_entries: Vec<Arc<WorkloadEntry>>,
    /// ServiceEntries.
    pub service_entries: Vec<Arc<ServiceEntry>>,
    /// RegistrationEntries.
    pub registration_entries: Vec<Arc<RegistrationEntry>>,
}

impl Resources {
    /// How many there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.authorization_policies.len()
            + self.request_authentications.len()
            + self.peer_authentications.len()
            + self.workload_entries.len()
            + self.service_entries.len()
            + self.registration_entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One accepted document. Loading `text` alone, with the same default namespace, gives the same resource with the
/// same origins: what a control plane sends to a proxy that it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The resource's kind, for example `AuthorizationPolicy`.
    pub kind: &'static str,
    /// Its namespace, the default one filled in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The document as written.
    pub text: SourceText,
}

/// The result of loading: always whole, whatever the text was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What was accepted.
    pub resources: Resources,
    /// The documents of what was accepted, in the same order as they were read.
    pub documents: Vec<Document>,
    /// Everything found, ordered by file as given, then line and column.
    pub diagnostics: Vec<Diagnostic>,
    /// Resources of other API groups, and networking kinds that are not used here.
    pub skipped: usize,
    /// Documents refused, unreadable ones included.
    pub refused: usize,
}

impl Loaded {
    /// Whether something was refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.refused > 0 || self.diagnostics.iter().any(Diagnostic::is_error)
    }
}
