//! The mode of the port that is called: whether a request without identity would have come this far.

use palisade_policies::{MtlsMode, select};
use serde::Serialize;

use crate::eval::court::Court;
use crate::input::Input;

/// The mTLS mode of a port.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mtls {
    /// The application's port.
    pub port: u16,
    /// `STRICT`, `PERMISSIVE` or `DISABLE`.
    pub mode: &'static str,
    /// The PeerAuthentication that decided, as `namespace/name`; none where the default holds.
    pub policy: Option<String>,
    /// File and line of it.
    pub at: Option<String>,
    /// Whether this request would be refused for it, before any policy is asked.
    pub refuses: bool,
}

pub(super) fn of(court: &Court, input: &Input) -> Option<Mtls> {
    let port = input.port?;
    let decided = select::mtls_mode(&court.resources, &court.mesh, &input.workload, port);
    Some(Mtls {
        port,
        mode: decided.mode.as_str(),
        policy: decided.policy,
        at: decided.origin.map(|origin| origin.to_string()),
        refuses: decided.mode == MtlsMode::Strict && input.principal.is_none(),
    })
}
