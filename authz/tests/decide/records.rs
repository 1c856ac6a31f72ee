//! A permit spent and a denial recorded leave exactly one record each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

use palisade_authz::{
    CompiledSet, Decision, DecisionRecord, DecisionSink, Phase, RequestFacts, Semantics, Verdict, reason,
};
use palisade_policies::MeshConfig;
use serde_json::{Value, json};

use crate::ask::{Ask, policy};

#[derive(Default)]
struct Kept(Mutex<Vec<DecisionRecord>>);

impl DecisionSink for Kept {
    fn has_room(&self) -> bool {
        true
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn record(&self, record: DecisionRecord) {
        self.0.lock().unwrap().push(record);
    }
}

fn decide(spec: &Value) -> Decision {
    let set = CompiledSet::compile(&[policy(spec)], &MeshConfig::default(), Semantics::Http);
    Ask::get("/").view(&MeshConfig::default(), |request| set.decide(request))
}

fn facts() -> RequestFacts {
    RequestFacts { revision: "r1".into(), protocol: "http", status: 200, ..RequestFacts::default() }
}

#[test]
fn every_way_out_writes_one_record() {
    let sink = Kept::default();
    match decide(&json!({"rules": [{}]})) {
        Decision::Allow(permit) => permit.spend(&sink, facts()),
        Decision::Deny(_) => panic!("denied"),
    }
    for changed in [false, true] {
        match decide(&json!({"action": "DENY", "rules": [{}]})) {
            Decision::Deny(denial) if changed => denial.record_as(reason::POLICY_CHANGED, &sink, facts()),
            Decision::Deny(denial) => denial.record(&sink, facts()),
            Decision::Allow(_) => panic!("allowed"),
        }
    }
    sink.record(DecisionRecord::connection_refused(reason::STRICT_PLAINTEXT, facts()));
    let kept = sink.0.lock().unwrap();
    let summary: Vec<_> = kept
        .iter()
        .map(|record| (record.verdict, record.evaluation.phase, record.reason, record.evaluation.policy.is_some()))
        .collect();
    assert_eq!(
        summary,
        [
            (Verdict::Allow, Phase::Allow, "allow-matched", true),
            (Verdict::Deny, Phase::Deny, "deny-matched", true),
            (Verdict::Deny, Phase::Deny, "policy-changed", true),
            (Verdict::Deny, Phase::Authn, "strict-plaintext", false),
        ]
    );
    assert!(kept.iter().all(|record| &*record.facts.revision == "r1"));
}

#[test]
fn a_policy_ref_names_policy_rule_and_place() {
    let Decision::Allow(permit) = decide(&json!({"name": "n", "rules": [{}]})) else { panic!("denied") };
    let policy = permit.evaluation().policy.clone().unwrap();
    assert_eq!((policy.namespace(), policy.name(), policy.rule()), ("foo", "n", 0));
    assert_eq!((&*policy.origin().file, policy.origin().line), ("test.yaml", 1));
    let _ = permit;
}
