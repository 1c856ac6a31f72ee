//! Hosts: compared as the caller writes them, port included.

use palisade_authz::Semantics;

use super::slot::{Field, Slot};
use super::witness::concrete;
use super::{Proposal, Stage};

fn variant(stage: Stage<'_>, slot: Slot<'_>, code: &'static str, host: &str, meant: &[&str]) -> Option<Proposal> {
    let mut request = stage.setting(code).matching(slot, Semantics::Http);
    request.host(host);
    Some(Proposal {
        code,
        field: slot.path(),
        message: format!("the host `{host}` passes `{}`", slot.value),
        request,
        meant: Some(slot.instead(stage.policy, meant)?),
        passes: true,
    })
}

/// A host that is closed, and open with its port.
pub(super) fn port(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let value = slot.value;
    if slot.list.field != Field::Host || !stage.closes(slot.list) || value.contains(':') || value.ends_with('*') {
        return None;
    }
    let port = stage.setting("PAL0707").matching(slot, Semantics::Http).destination.port;
    let host = format!("{}:{port}", concrete(value, "a"));
    variant(stage, slot, "PAL0707", &host, &[value, &host])
}

/// A prefix of hosts that lets foreign domains in.
pub(super) fn prefix(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let domain = slot.value.strip_suffix('*')?;
    let whole = domain.contains('.') && !domain.ends_with(['.', ':', '-']);
    if slot.list.field != Field::Host || stage.closes(slot.list) || domain.starts_with('*') || !whole {
        return None;
    }
    variant(stage, slot, "PAL0708", &format!("{domain}.evil.org"), &[domain, &format!("{domain}:*")])
}
