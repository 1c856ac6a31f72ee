//! What was decided is what is forwarded, in whichever way that is read.

use palisade_authz::Phase;
use palisade_wire::envoy::envoy::service::auth::v3::check_response::HttpResponse;

use crate::tokens::{authentication, ok, token};
use crate::world::{World, get, policy, reason, status, with_header};

fn when(conditions: &[(&str, &str)]) -> String {
    let conditions: Vec<String> = conditions
        .iter()
        .map(|(name, value)| format!("{{key: 'request.headers[{name}]', values: ['{value}']}}"))
        .collect();
    format!("{{when: [{}]}}", conditions.join(", "))
}

/// A comma may part two fields or none, each by itself: a rule that matches any mixture is not missed.
#[tokio::test]
async fn mixtures_of_joined_headers_are_decided() {
    let mut world = World::new();
    let mut client = world.client(false).await;
    let long = "1,2,3,4,5,6,7,8,9";
    for (action, rule, headers, expected) in [
        ("DENY", when(&[("x-roles", "admin,ops")]), &[("x-roles", "admin,ops,z")][..], "ambiguous-request"),
        ("DENY", when(&[("x-roles", "admin,ops")]), &[("x-roles", "admin,z,ops")], "no-allow-policy"),
        ("DENY", when(&[("x-a", "a"), ("x-b", "c,d")]), &[("x-a", "a,b"), ("x-b", "c,d")], "ambiguous-request"),
        ("DENY", when(&[("x-a", "a"), ("x-b", "c,d")]), &[("x-a", "b,b"), ("x-b", "c,d")], "no-allow-policy"),
        ("ALLOW", when(&[("x-a", "a,b")]), &[("x-a", "a,b")], "ambiguous-request"),
        ("ALLOW", when(&[("x-a", "*")]), &[("x-a", "a,b")], "allow-matched"),
        ("DENY", when(&[("x-a", "x")]), &[("x-a", long)], "ambiguous-request"),
        ("DENY", when(&[("x-a", "x")]), &[("x-other", long)], "no-allow-policy"),
        ("DENY", when(&[("accept", "x")]), &[("accept", long)], "no-allow-policy"),
        ("ALLOW", when(&[("x-a", "*!")]), &[("x-a", "a!")], "ambiguous-request"),
    ] {
        world.policies.set(&policy("one", action, &rule), "");
        let asked = headers.iter().fold(get("/"), |asked, (name, value)| with_header(asked, name, value));
        assert_eq!(client.reason(asked).await, expected, "{action} {rule} {headers:?}");
        assert_eq!(world.records().len(), 1);
    }
    world.stop().await;
}

/// A token may stand in a field that joining hid.
#[tokio::test]
async fn a_token_that_joining_hides_is_not_missed() {
    let rules = authentication("    fromCookies: [a]\n");
    let deny = policy("one", "DENY", "{from: [{source: {requestPrincipals: ['*']}}]}");
    let mut world = World::with(&format!("{rules}{deny}"));
    let mut client = world.client(false).await;
    let hidden = with_header(get("/"), "cookie", &format!("x=1,a={}", token("x")));
    assert_eq!(client.reason(hidden).await, "ambiguous-request");
    assert_eq!(world.records().pop().unwrap().evaluation.phase, Phase::Authn);
    assert_eq!(client.status(with_header(get("/"), "cookie", "x=1; b=2")).await, 200);
    world.stop().await;
}

/// Two values of one name reach the workload, and no policy has passed the request for what it does not get.
#[tokio::test]
async fn repeated_edits_are_forwarded_whole() {
    let outputs = "    outputClaimToHeaders: [{header: x-c, claim: team}, {header: x-c, claim: sub}]\n";
    let mut world = World::with(&authentication(outputs));
    let mut client = world.client(false).await;
    let asked = || with_header(get("/"), "authorization", &format!("Bearer {}", token("x")));
    let allowed = ok(client.ask(asked()).await);
    let set: Vec<_> = allowed.headers.iter().filter_map(|option| option.header.as_ref()).collect();
    assert_eq!(set.iter().map(|header| (&*header.key, &*header.value)).collect::<Vec<_>>(), [("x-c", "blue,alice")]);
    assert_eq!(allowed.headers_to_remove, ["authorization"]);

    for value in ["blue", "alice", "blue,alice"] {
        let allow = policy("one", "ALLOW", &when(&[("x-c", value)]));
        world.policies.set(&format!("{}{allow}", authentication(outputs)), "");
        let answer = client.ask(asked()).await;
        assert!(matches!(answer.http_response, Some(HttpResponse::DeniedResponse(_))), "{value}");
        if value == "blue" {
            assert_eq!((reason(&answer).as_str(), status(&answer)), ("ambiguous-request", 400));
        }
    }
    world.stop().await;
}
