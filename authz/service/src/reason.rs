//! Stable reason codes of this service's own refusals: what is denied before, or beside, any policy.

/// Denied: the policies are not there yet.
pub const NO_SNAPSHOT: &str = palisade_authz::reason::NO_SNAPSHOT;
/// Denied: the request's own data contradict each other or are none.
pub const BAD_REQUEST: &str = "bad-request";
/// Denied: no workload of the registry is meant.
pub const WORKLOAD_UNKNOWN: &str = "workload-unknown";
/// Denied: more than one workload of the registry could be meant.
pub const WORKLOAD_AMBIGUOUS: &str = "workload-ambiguous";
/// Denied: the caller may not ask about this workload.
pub const CALLER_NOT_ALLOWED: &str = "caller-not-allowed";
/// Denied: the caller states an identity for its client that is no SPIFFE ID.
pub const PEER_INVALID: &str = palisade_authz::reason::PEER_INVALID;
/// Denied: an attribute that is not known would decide.
pub const UNDECIDED: &str = "undecided";
/// Denied: a rule asks for the client's identity or claims, and the caller that states them has not proven itself.
pub const CALLER_UNPROVEN: &str = "caller-unproven";
/// Denied: what is behind the caller could read the request in another way, and the two verdicts differ.
pub const AMBIGUOUS_REQUEST: &str = "ambiguous-request";
