//! What users see, letter by letter.

use palisade_audit::{Event, render};
use palisade_wire::audit::{Header, Http, Kind, Party, Shadow, Verdict};

use crate::support::{gap, numbered};

fn events() -> Vec<Event> {
    let allowed = numbered("shop/payments", 7, 1);
    let mut denied = numbered("shop/payments", 7, 3);
    denied.status = 403;
    denied.http = Some(Http {
        method: "POST".into(),
        host: "payments.shop:8080".into(),
        path: "/refund".into(),
        ..Http::default()
    });
    denied.shadow_allow = Some(Shadow {
        result: "denied".into(),
        policy: "ns[shop]-policy[candidate]-rule[1]".into(),
        policy_file: "candidate.yaml".into(),
        policy_line: 9,
    });
    denied.shadow_deny = Some(Shadow { result: "allowed".into(), ..Shadow::default() });
    let refused = Event {
        kind: Kind::Connection.into(),
        verdict: Verdict::Deny.into(),
        phase: String::new(),
        reason: "strict-plaintext".into(),
        policy: String::new(),
        policy_file: String::new(),
        policy_line: 0,
        http: None,
        status: 0,
        protocol: "tcp".into(),
        transport: "plaintext".into(),
        source: Some(Party { ip: "10.0.0.30".into(), port: 5123, ..Party::default() }),
        source_hint: "legacy/batch".into(),
        ..numbered("shop/payments", 7, 4)
    };
    vec![allowed, denied, refused, gap("shop/payments", 7, 5, 16, "overflow"), gap("shop/payments", 7, 17, 0, "crash")]
}

const TABLE: &str = "\
TIME                      VERDICT  SOURCE                         DESTINATION         REQUEST               STATUS  PHASE  POLICY                                                      SHADOW
2023-11-14T22:13:20.000Z  allow    cluster.local/ns/web/sa/front  shop/payments:8080  GET /item/1           200     deny   ns[shop]-policy[no-refund]-rule[0] (policies/shop.yaml:12)  -
2023-11-14T22:13:20.000Z  deny     cluster.local/ns/web/sa/front  shop/payments:8080  POST /refund          403     deny   ns[shop]-policy[no-refund]-rule[0] (policies/shop.yaml:12)  allow=denied ns[shop]-policy[candidate]-rule[1] (candidate.yaml:9), deny=allowed
2023-11-14T22:13:20.000Z  deny     10.0.0.30 (legacy/batch?)      shop/payments:8080  tcp                   -       -      (strict-plaintext)                                          -
2023-11-14T22:13:20.000Z  gap      shop/payments                  -                   events lost: 12       -       -      -                                                           -
2023-11-14T22:13:20.000Z  gap      shop/payments                  -                   events lost: unknown  -       -      -                                                           -
";

#[test]
fn a_table_is_for_eyes() {
    assert_eq!(render::table(&events()), TABLE);
    assert_eq!(render::table(&[]), "TIME  VERDICT  SOURCE  DESTINATION  REQUEST  STATUS  PHASE  POLICY  SHADOW\n");
    let header = render::follow_header();
    let row = render::follow_row(&events()[0]);
    assert_eq!(header.find("VERDICT"), row.find("allow"));
    assert_eq!(header.find("REQUEST"), row.find("GET"));
}

const JSON: [&str; 4] = [
    r#"{"schema":"palisade.audit.v1","id":"shop/payments/7/1","kind":"authz.decision","time":"2023-11-14T22:13:20.000000001Z","pep":{"id":"shop/payments","epoch":7,"seq":1},"decision":"allow","phase":"deny","reason":"deny-matched","policy":{"id":"ns[shop]-policy[no-refund]-rule[0]","source_ref":"policies/shop.yaml:12","revision":"r7"},"src":{"spiffe":"spiffe://cluster.local/ns/web/sa/front","ns":"web","workload":"front","addr":"10.0.0.7","port":8080},"dst":{"spiffe":"spiffe://cluster.local/ns/shop/sa/payments","ns":"shop","workload":"payments","addr":"10.0.0.9","port":8080},"proto":"http","tls":"mtls","method":"GET","host":"payments.shop","path":"/item/1","status":200,"duration_ns":1}"#,
    r#"{"schema":"palisade.audit.v1","id":"shop/payments/7/3","kind":"authz.decision","time":"2023-11-14T22:13:20.000000003Z","pep":{"id":"shop/payments","epoch":7,"seq":3},"decision":"deny","phase":"deny","reason":"deny-matched","policy":{"id":"ns[shop]-policy[no-refund]-rule[0]","source_ref":"policies/shop.yaml:12","revision":"r7"},"shadow":{"allow":{"result":"denied","policy":"ns[shop]-policy[candidate]-rule[1]","source_ref":"candidate.yaml:9"},"deny":{"result":"allowed"}},"src":{"spiffe":"spiffe://cluster.local/ns/web/sa/front","ns":"web","workload":"front","addr":"10.0.0.7","port":8080},"dst":{"spiffe":"spiffe://cluster.local/ns/shop/sa/payments","ns":"shop","workload":"payments","addr":"10.0.0.9","port":8080},"proto":"http","tls":"mtls","method":"POST","host":"payments.shop:8080","path":"/refund","status":403,"duration_ns":3}"#,
    r#"{"schema":"palisade.audit.v1","id":"shop/payments/7/4","kind":"authn.handshake","time":"2023-11-14T22:13:20.000000004Z","pep":{"id":"shop/payments","epoch":7,"seq":4},"decision":"deny","reason":"strict-plaintext","policy":{"revision":"r7"},"src":{"addr":"10.0.0.30","port":5123,"hint":"legacy/batch"},"dst":{"spiffe":"spiffe://cluster.local/ns/shop/sa/payments","ns":"shop","workload":"payments","addr":"10.0.0.9","port":8080},"proto":"tcp","tls":"none","duration_ns":4}"#,
    r#"{"schema":"palisade.audit.v1","id":"shop/payments/7/5","kind":"audit.gap","time":"2023-11-14T22:13:20.000000005Z","pep":{"id":"shop/payments","epoch":7,"seq":5},"gap":{"from_seq":5,"to_seq":16,"count":12,"cause":"overflow"}}"#,
];

#[test]
fn json_is_for_programs() {
    for (event, expected) in events().iter().zip(JSON) {
        assert_eq!(render::json(event), expected);
    }
}

#[test]
fn text_of_a_caller_is_never_obeyed() {
    let mut event = numbered("shop/payments", 7, 1);
    event.sni = "\u{1b}]0;owned\u{7}".into();
    event.http = Some(Http {
        method: "GET".into(),
        path: "/\u{1b}[2J\u{9b}31m\r\n2023 allow \u{202e}".into(),
        headers: vec![Header { name: "x".into(), value: b"\xff\x1b[1m".to_vec() }],
        ..Http::default()
    });
    event.altered = vec!["http.path".into()];
    let table = render::table(std::slice::from_ref(&event));
    assert_eq!(table.lines().count(), 2);
    assert!(table.contains(r"GET /\u{1b}[2J\u{9b}31m\u{d}\u{a}2023 allow \u{202e}"), "{table}");
    let json = render::json(&event);
    assert!(
        !json.chars().chain(table.replace('\n', "").chars()).any(|letter| letter.is_control() || letter == '\u{202e}')
    );
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["path"], "/\u{1b}[2J\u{9b}31m\r\n2023 allow \u{202e}", "a program reads the same text");
    assert_eq!(value["headers"], serde_json::json!([["x", "\u{fffd}\u{1b}[1m"]]));
    assert_eq!(value["altered"], serde_json::json!(["http.path"]));
}

#[test]
fn a_long_value_does_not_push_the_table_apart() {
    let mut event = numbered("shop/payments", 7, 1);
    event.http = Some(Http { method: "GET".into(), path: "é".repeat(4000), ..Http::default() });
    let table = render::table(&[event]);
    assert!(table.lines().all(|line| line.chars().count() < 400));
    assert!(table.contains("é…"), "{table}");
}
