//! Which workload is meant: exactly one of the registry, or a typed refusal. Deciding by the policies of the wrong workload
//! would be worse than not deciding.

use std::net::IpAddr;
use std::sync::Arc;

use palisade_identity::SpiffeId;
use palisade_policies::WorkloadEntry;

use crate::reason;
use crate::source::PolicySnapshot;

/// The key of `context_extensions` that names the workload, as `<namespace>/<name>`.
pub const WORKLOAD_KEY: &str = "palisade.workload";

/// Why no single workload is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The name has another form.
    #[error("`{0}` is not `<namespace>/<name>` of a workload")]
    Name(String),
    /// Nobody of that name, identity or address.
    #[error("no workload of the registry {0}")]
    Unknown(String),
    /// Several of that identity or address.
    #[error("{count} workloads of the registry {what}; name one as `<namespace>/<name>`")]
    Ambiguous {
        /// How many.
        count: usize,
        /// What they have in common.
        what: String,
    },
    /// Nothing names a workload.
    #[error("nothing names the workload: no `palisade.workload`, no destination principal, no destination address")]
    Nothing,
}

impl LookupError {
    /// The stable reason code.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Name(_) => reason::BAD_REQUEST,
            Self::Unknown(_) | Self::Nothing => reason::WORKLOAD_UNKNOWN,
            Self::Ambiguous { .. } => reason::WORKLOAD_AMBIGUOUS,
        }
    }
}

/// What a caller says about the workload, the strongest first. What is said is used: a name that does not exist is an error
/// and never a reason to look at the address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hints<'a> {
    /// `<namespace>/<name>`.
    pub(crate) name: Option<&'a str>,
    /// Principal of the destination, as the caller's own certificate has it.
    pub(crate) principal: Option<&'a str>,
    /// Address of the destination.
    pub(crate) address: Option<IpAddr>,
}

impl Hints<'_> {
    /// The one workload that is meant.
    pub(crate) fn find(&self, snapshot: &PolicySnapshot) -> Result<Arc<WorkloadEntry>, LookupError> {
        if let Some(name) = self.name {
            return by_name(snapshot, name);
        }
        // A gateway may show a certificate for a DNS name: that says nothing about a workload.
        if let Some(text) = self.principal.filter(|text| text.starts_with("spiffe://")) {
            let id = SpiffeId::parse(text).map_err(|_| LookupError::Unknown(format!("is `{text}`")))?;
            return only(snapshot.with_identity(&id), || format!("has the identity `{id}`"));
        }
        match self.address {
            Some(ip) => only(snapshot.at(ip), || format!("is at {ip}")),
            None => Err(LookupError::Nothing),
        }
    }
}

/// The workload of `<namespace>/<name>`.
pub(crate) fn by_name(snapshot: &PolicySnapshot, text: &str) -> Result<Arc<WorkloadEntry>, LookupError> {
    let (namespace, name) = text
        .split_once('/')
        .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
        .ok_or_else(|| LookupError::Name(text.chars().take(253).collect()))?;
    let found = snapshot.registry().workload(namespace, name).cloned();
    found.ok_or_else(|| LookupError::Unknown(format!("is called `{namespace}/{name}`")))
}

pub(crate) fn only(found: &[Arc<WorkloadEntry>], what: impl Fn() -> String) -> Result<Arc<WorkloadEntry>, LookupError> {
    match found {
        [one] => Ok(Arc::clone(one)),
        [] => Err(LookupError::Unknown(what())),
        several => Err(LookupError::Ambiguous { count: several.len(), what: what() }),
    }
}
