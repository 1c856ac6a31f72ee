//! Where decisions become audit events: `authz` and `audit` do not know each other, the binary plugs one into the other.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use palisade_audit::Recorder;
use palisade_authz::{
    DecisionRecord, DecisionSink, DestinationFacts, HttpFacts, Phase, PolicyRef, ShadowResult, SourceFacts, Verdict,
    reason,
};
use palisade_wire::audit::{Event, Header, Http, Kind, Party, Shadow, Verdict as WireVerdict};

/// Sends every decision to the audit recorder.
pub(crate) struct AuditSink(pub(crate) Recorder);

impl DecisionSink for AuditSink {
    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.room())
    }

    fn record(&self, record: DecisionRecord) {
        self.0.record(event(record));
    }
}

/// The wire form of a decision. Enforcer, epoch and sequence are the recorder's to set.
pub(crate) fn event(record: DecisionRecord) -> Event {
    let DecisionRecord { facts, verdict, evaluation, reason } = record;
    let policy = evaluation.policy.as_ref();
    // An open connection that STRICT ends was cut before any policy was asked, as a new one would be. A request refused
    // for its token is of the same phase, and a decision.
    let cut = reason == reason::POLICY_CHANGED && evaluation.phase == Phase::Authn && facts.http.is_none();
    let kind = if is_connection(reason) || cut { Kind::Connection } else { Kind::Decision };
    Event {
        time_ns: facts.time_ns,
        kind: kind.into(),
        verdict: match verdict {
            Verdict::Allow => WireVerdict::Allow.into(),
            Verdict::Deny => WireVerdict::Deny.into(),
        },
        phase: if kind == Kind::Connection { String::new() } else { evaluation.phase.as_str().to_owned() },
        reason: reason.to_owned(),
        policy: policy.map_or_else(String::new, |policy| policy.id().to_owned()),
        policy_file: policy.map_or_else(String::new, |policy| policy.origin().file.to_string()),
        policy_line: policy.map_or(0, |policy| policy.origin().line),
        revision: facts.revision.to_string(),
        shadow_allow: evaluation.shadow.allow.as_ref().map(shadow),
        shadow_deny: evaluation.shadow.deny.as_ref().map(shadow),
        source: Some(source(&facts.source)),
        source_hint: facts.source.hint.clone().unwrap_or_default(),
        destination: Some(destination(&facts.destination)),
        http: facts.http.map(http),
        protocol: facts.protocol.to_owned(),
        transport: facts.transport.to_owned(),
        sni: facts.sni.map_or_else(String::new, |sni| sni.to_string()),
        status: facts.status.into(),
        duration_ns: u64::try_from(facts.duration.as_nanos()).unwrap_or(u64::MAX),
        audited: evaluation.audited,
        ..Event::default()
    }
}

/// Refused before any policy was asked.
fn is_connection(reason: &str) -> bool {
    [
        reason::STRICT_PLAINTEXT,
        reason::HANDSHAKE_FAILED,
        reason::PEER_INVALID,
        reason::PEER_REVOKED,
        reason::NO_SNAPSHOT,
        reason::HTTP_UNDETECTED,
    ]
    .contains(&reason)
}

fn shadow(result: &ShadowResult) -> Shadow {
    let policy: Option<&PolicyRef> = result.policy.as_ref();
    Shadow {
        result: result.as_str().to_owned(),
        policy: policy.map_or_else(String::new, |policy| policy.id().to_owned()),
        policy_file: policy.map_or_else(String::new, |policy| policy.origin().file.to_string()),
        policy_line: policy.map_or(0, |policy| policy.origin().line),
    }
}

/// The caller's namespace and name, for queries: of an ID in Istio's form its namespace and service account; of a plaintext
/// caller the workload at its address, which `source_hint` marks as a guess.
fn source(facts: &SourceFacts) -> Party {
    let principal = facts.principal.clone().unwrap_or_default();
    let (namespace, workload) = match &facts.principal {
        Some(principal) => namespace_and_account(principal),
        None => facts.hint.as_deref().and_then(|hint| hint.split_once('/')),
    }
    .map(|(namespace, workload)| (namespace.to_owned(), workload.to_owned()))
    .unwrap_or_default();
    Party {
        principal,
        namespace,
        workload,
        ip: address(facts.ip),
        port: facts.port.unwrap_or_default().into(),
        ..Party::default()
    }
}

/// Of `<trust domain>/ns/<namespace>/sa/<service account>`.
fn namespace_and_account(principal: &str) -> Option<(&str, &str)> {
    let (_, path) = principal.split_once('/')?;
    let (namespace, account) = path.strip_prefix("ns/")?.split_once("/sa/")?;
    (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
}

fn destination(facts: &DestinationFacts) -> Party {
    Party {
        principal: facts.principal.clone().unwrap_or_default(),
        namespace: facts.namespace.clone(),
        workload: facts.workload.clone(),
        ip: address(facts.ip),
        port: facts.port.unwrap_or_default().into(),
        service: facts.service.clone().unwrap_or_default(),
    }
}

fn address(ip: Option<IpAddr>) -> String {
    ip.map_or_else(String::new, |ip| ip.to_string())
}

fn http(facts: HttpFacts) -> Http {
    Http {
        method: facts.method,
        host: facts.host.unwrap_or_default(),
        path: facts.path.unwrap_or_default(),
        headers: facts.headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
        scheme: facts.scheme.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use palisade_authz::RequestFacts;

    use super::*;

    #[test]
    fn a_caller_is_found_by_the_names_in_its_identity() {
        let of = |principal: &str| {
            let facts = SourceFacts { principal: Some(principal.to_owned()), ..SourceFacts::default() };
            let party = source(&facts);
            (party.namespace, party.workload)
        };
        assert_eq!(of("cluster.local/ns/shop/sa/web"), ("shop".to_owned(), "web".to_owned()));
        assert_eq!(of("cluster.local/spire/agent"), Default::default());
        assert_eq!(of("cluster.local/ns/a/b/sa/c"), Default::default());
        assert_eq!(of("cluster.local/evil/ns/shop/sa/web"), Default::default());
    }

    fn party(namespace: &str, workload: &str, ip: &str, port: u32) -> Party {
        let (namespace, workload, ip) = (namespace.to_owned(), workload.to_owned(), ip.to_owned());
        Party { namespace, workload, ip, port, ..Party::default() }
    }

    #[test]
    fn a_refused_connection_keeps_every_fact() {
        let facts = RequestFacts {
            time_ns: 7,
            revision: "r1".into(),
            source: Arc::new(SourceFacts {
                ip: Some("127.0.0.13".parse().unwrap()),
                port: Some(4711),
                hint: Some("shop/legacy".to_owned()),
                ..SourceFacts::default()
            }),
            destination: Arc::new(DestinationFacts {
                namespace: "shop".to_owned(),
                workload: "payments".to_owned(),
                port: Some(8080),
                ..DestinationFacts::default()
            }),
            protocol: "tcp",
            transport: "plaintext",
            duration: Duration::from_nanos(9),
            ..RequestFacts::default()
        };
        let seen = event(DecisionRecord::connection_refused(reason::STRICT_PLAINTEXT, facts));
        let expected = Event {
            time_ns: 7,
            kind: Kind::Connection.into(),
            verdict: WireVerdict::Deny.into(),
            reason: "strict-plaintext".to_owned(),
            revision: "r1".to_owned(),
            source: Some(party("shop", "legacy", "127.0.0.13", 4711)),
            source_hint: "shop/legacy".to_owned(),
            destination: Some(party("shop", "payments", "", 8080)),
            protocol: "tcp".to_owned(),
            transport: "plaintext".to_owned(),
            duration_ns: 9,
            ..Event::default()
        };
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_request_refused_for_its_token_is_a_decision() {
        let seen = |reason, http| {
            let facts = RequestFacts { status: 401, protocol: "http", http, ..RequestFacts::default() };
            let event = event(DecisionRecord::connection_refused(reason, facts));
            (event.kind(), event.phase, event.reason, event.status)
        };
        let request = || Some(HttpFacts { method: "GET".to_owned(), ..HttpFacts::default() });
        for reason in [reason::TOKEN_INVALID, reason::TOKEN_AUDIENCE, reason::POLICY_CHANGED] {
            assert_eq!(seen(reason, request()), (Kind::Decision, "authn".to_owned(), reason.to_owned(), 401));
        }
        assert_eq!(seen(reason::POLICY_CHANGED, None).0, Kind::Connection, "cut by STRICT");
    }
}
