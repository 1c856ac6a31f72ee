//! What the admin port shows of a running proxy.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::core::Core;
use crate::snapshot::ProxySnapshot;

/// A listener and where it really listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// `inbound/0`, `outbound/0`, ..: direction and position in the configuration.
    pub role: String,
    /// The address, with the port that was taken where 0 was asked for.
    pub address: SocketAddr,
    /// Where its traffic goes: the application's address, or the service.
    pub to: String,
}

/// The status as JSON.
pub(crate) fn status(core: &Core, bound: &[Bound]) -> Value {
    let identity = core.certs.current().map(|epoch| {
        let svid = &epoch.identity.svid;
        json!({
            "spiffeId": svid.id().as_str(),
            "serial": svid.serial(),
            "notBefore": svid.not_before().as_secs(),
            "notAfter": svid.not_after().as_secs(),
            "epoch": epoch.number,
        })
    });
    let listeners: Vec<Value> = bound
        .iter()
        .map(|one| {
            let direction = one.role.split('/').next();
            json!({"role": one.role, "direction": direction, "address": one.address.to_string(), "to": one.to})
        })
        .collect();
    json!({
        "workload": {"namespace": core.workload.namespace, "name": core.workload.name},
        "listeners": listeners,
        "revision": core.snapshot.load().as_ref().map(|snapshot| snapshot.revision.to_string()),
        "providers": core.snapshot.load().as_ref().map_or_else(Vec::new, |snapshot| providers(snapshot)),
        "tokenKeys": core.snapshot.load().as_ref().map_or_else(Vec::new, |snapshot| token_keys(snapshot)),
        "identity": identity,
        "connections": {"accepted": core.accepted.load(Ordering::Relaxed), "registered": core.live.len()},
        "plaintextCallers": callers(core),
        "plaintextCallersNotListed": core.callers.others.load(Ordering::Relaxed),
        "draining": core.is_draining(),
    })
}

fn providers(snapshot: &ProxySnapshot) -> Vec<Value> {
    let all = snapshot.providers.counts();
    all.map(|(name, counts)| json!({"name": name, "ok": counts.ok, "denied": counts.denied, "error": counts.error}))
        .collect()
}

fn token_keys(snapshot: &ProxySnapshot) -> Vec<Value> {
    let all = snapshot.keys.states().into_iter();
    all.map(|state| json!({"source": state.source, "keys": state.keys, "error": state.error})).collect()
}

fn callers(core: &Core) -> Vec<Value> {
    let all = core.callers.all().into_iter();
    all.map(|(ip, caller)| {
        json!({
            "address": ip.to_string(),
            "hint": caller.hint,
            "port": caller.port,
            "count": caller.connections.load(Ordering::Relaxed),
            "requests": caller.requests.load(Ordering::Relaxed),
            "lastSeen": caller.last.load(Ordering::Relaxed),
        })
    })
    .collect()
}
