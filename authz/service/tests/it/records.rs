//! What a record holds, and what it never does.

use std::time::{SystemTime, UNIX_EPOCH};

use palisade_authz_service::{Callers, Security};
use palisade_wire::envoy::google::protobuf::Timestamp;
use serde_json::json;

use crate::authzen::{EVALUATION, post, question, send};
use crate::tokens::{authentication, token};
use crate::world::{World, get, policy, with_header};

/// Policies may read credentials, and token rules name more of them; a record holds none.
#[tokio::test]
async fn no_record_holds_a_credential() {
    let secret = ["authorization", "cookie", "proxy-authorization", "x-jwt", "x-payload"];
    let rules = authentication("    fromHeaders: [{name: X-JWT}]\n    outputPayloadToHeader: x-payload\n");
    let read: String = secret
        .iter()
        .chain(&["x-shown"])
        .map(|name| policy(name, "DENY", &format!("{{when: [{{key: 'request.headers[{name}]', values: [x]}}]}}")))
        .collect();
    let mut world = World::with(&format!("{rules}{read}"));
    let mut client = world.client(false).await;
    let values = |name: &str| if name == "x-jwt" { token("shop") } else { "a-secret".to_owned() };
    let asked = secret.iter().fold(get("/"), |asked, name| with_header(asked, name, &values(name)));
    assert_eq!(client.status(with_header(asked, "x-shown", "b")).await, 200);

    let address = world.authzen(Security::Loopback, Callers::default()).await;
    let mut asked = question();
    let headers = secret.iter().map(|name| json!([name, values(name)])).chain([json!(["x-shown", "b"])]);
    asked["context"] = json!({"headers": headers.collect::<Vec<_>>(), "ip": "10.0.0.1"});
    asked["resource"]["properties"] = json!({"path": "/", "host": "a", "scheme": "http", "port": 1});
    let answer = send(address, post(EVALUATION, asked.to_string())).await;
    assert_eq!(answer.body["decision"], true, "{}", answer.body);

    let records = world.records();
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(record.facts.http.unwrap().headers, [("x-shown".to_owned(), b"b".to_vec())]);
    }
    world.stop().await;
}

/// Nobody hides a decision by dating it back or forward.
#[tokio::test]
async fn the_time_of_a_record_is_our_own() {
    let mut world = World::with("");
    let mut client = world.client(true).await;
    let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    for seconds in [1, 4_000_000_000] {
        let before = now();
        for path in ["/", "no-path"] {
            let mut asked = get(path);
            asked.request.as_mut().unwrap().time = Some(Timestamp { seconds, nanos: 0 });
            client.ask(asked).await;
        }
        let times: Vec<u64> = world.records().iter().map(|record| record.facts.time_ns).collect();
        assert!(times.len() == 2 && times.iter().all(|time| (before..=now()).contains(time)), "{times:?}");
    }
    world.stop().await;
}
