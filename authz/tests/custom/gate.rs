//! The gate: which phase sees what, and what a provider's answer does not excuse from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use palisade_authz::gate::{BodySource, Judgement, NoBody, Reading};
use palisade_authz::provider::Response;
use palisade_authz::{Known, Outcome, Phase};
use palisade_policies::{CheckBody, ProviderKind};
use palisade_wire::envoy::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};

use crate::support::{GrpcServer, grpc, http, http_server, nobody, option, refusing, setting, yes};
use crate::world::{Call, World, custom, policy, token, token_rules};

fn allowed() -> CheckResponse {
    CheckResponse::default()
}

fn kind(server: &GrpcServer) -> ProviderKind {
    ProviderKind::ExtAuthzGrpc(grpc(server.address))
}

#[tokio::test]
async fn without_providers_and_tokens_the_policies_are_the_whole_answer() {
    let world = World::new(&policy("DENY", "to: [{operation: {paths: ['/no']}}]"), Vec::new());
    assert!(world.gate.is_plain());
    assert_eq!(world.status(&Call::get("/yes")).await, "200 default no-allow-policy");
    assert_eq!(world.status(&Call::get("/no")).await, "403 deny deny-matched RBAC: access denied");
    let none = World::new("", Vec::new());
    assert!(none.gate.is_plain() && none.gate.policies().is_empty());
    assert_eq!(none.status(&Call::get("/no")).await, "200 default no-allow-policy");
}

#[tokio::test]
async fn a_provider_is_asked_about_what_matches_and_its_yes_is_not_the_last_word() {
    let server = GrpcServer::saying(allowed()).await;
    let text = [
        custom("ext", "to: [{operation: {paths: ['/c*']}}]"),
        policy("DENY", "to: [{operation: {paths: ['/c/deny']}}]"),
        policy("ALLOW", "to: [{operation: {paths: ['/c/allow', '/other']}}]"),
    ]
    .concat();
    let world = World::new(&text, vec![("ext", kind(&server))]);
    assert!(!world.gate.is_plain());
    for (path, asked, expected) in [
        ("/other", 0, "200 allow allow-matched"),
        ("/else", 0, "403 default no-allow-matched RBAC: access denied"),
        ("/c/allow", 1, "200 allow allow-matched"),
        ("/c/deny", 2, "403 deny deny-matched RBAC: access denied"),
        ("/c/else", 3, "403 default no-allow-matched RBAC: access denied"),
    ] {
        assert_eq!(world.status(&Call::get(path)).await, expected, "{path}");
        assert_eq!(server.seen().len(), asked, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_of_a_provider_names_the_rule_that_asked() {
    let server = GrpcServer::saying(refusing(401, vec![option("x-why", "1", None, 0)], "go")).await;
    let world = World::new(&custom("ext", "to: [{operation: {paths: ['/c']}}]"), vec![("ext", kind(&server))]);
    let Judgement::Refuse { denial, response, .. } = world.judge(&Call::get("/c")).await else { panic!() };
    let evaluation = denial.evaluation();
    assert_eq!((evaluation.phase, denial.reason()), (Phase::Custom, "custom-denied"));
    assert_eq!(evaluation.policy.as_ref().unwrap().name(), "custom-ext");
    assert_eq!((response.status, &response.body[..]), (401, &b"go"[..]));
    assert!(response.headers.contains(&("x-why".into(), b"1".to_vec())));
}

#[tokio::test]
async fn trap_45_two_providers() {
    let server = GrpcServer::saying(allowed()).await;
    let text =
        [custom("one", "to: [{operation: {paths: ['/1']}}]"), custom("two", "to: [{operation: {paths: ['/2']}}]")];
    let world = World::new(&text.concat(), vec![("one", kind(&server)), ("two", kind(&server))]);
    for path in ["/1", "/2"] {
        assert_eq!(world.status(&Call::get(path)).await, "403 custom no-provider RBAC: access denied");
    }
    assert_eq!(world.status(&Call::get("/3")).await, "200 default no-allow-policy");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn trap_46_provider_down() {
    let down = nobody().await;
    for (fail_open, status_on_error, expected) in [
        (false, None, "403 custom custom-error "),
        (false, Some(503), "503 custom custom-error "),
        (true, Some(503), "200 default no-allow-policy"),
    ] {
        let (mut over_grpc, mut over_http) = (grpc(down), http(down));
        (over_grpc.fail_open, over_grpc.status_on_error) = (fail_open, status_on_error);
        (over_http.fail_open, over_http.status_on_error) = (fail_open, status_on_error);
        for kind in [ProviderKind::ExtAuthzGrpc(over_grpc), ProviderKind::ExtAuthzHttp(over_http)] {
            let world = World::new(&custom("ext", "to: [{operation: {paths: ['/c']}}]"), vec![("ext", kind)]);
            assert_eq!(world.status(&Call::get("/c")).await, expected);
            assert_eq!(world.status(&Call::get("/other")).await, "200 default no-allow-policy");
        }
    }
}

#[tokio::test]
async fn trap_47_bad_token_before_deny_and_provider_before_token() {
    let server = GrpcServer::start(|question| {
        let path = &question.attributes.as_ref().unwrap().request.as_ref().unwrap().http.as_ref().unwrap().path;
        Ok(if path == "/c/no" { refusing(418, Vec::new(), "") } else { CheckResponse::default() })
    })
    .await;
    let text = [
        custom("ext", "to: [{operation: {paths: ['/c/*']}}]"),
        token_rules(""),
        policy("DENY", "to: [{operation: {paths: ['/c/*', '/deny']}}]"),
    ]
    .concat();
    let world = World::new(&text, vec![("ext", kind(&server))]);
    let bad = [("authorization", "Bearer nonsense")];
    assert_eq!(world.short(&Call::get("/deny").with(&bad)).await, "401 authn token-invalid");
    assert_eq!(world.short(&Call::get("/deny")).await, "403 deny deny-matched");
    assert!(server.seen().is_empty());
    assert_eq!(world.short(&Call::get("/c/no").with(&bad)).await, "418 custom custom-denied");
    assert_eq!(world.short(&Call::get("/c/yes").with(&bad)).await, "401 authn token-invalid");
    assert_eq!(server.seen().len(), 2);
    let Judgement::Refuse { response, .. } = world.judge(&Call::get("/deny").with(&bad)).await else { panic!() };
    assert!(response.headers.iter().any(|(name, _)| name == "www-authenticate"), "{response:?}");
}

/// Dry-run is refused for CUSTOM; past validation Istio denies what matches and asks nobody.
#[tokio::test]
async fn custom_plus_dry_run_denies_without_asking() {
    let server = GrpcServer::saying(allowed()).await;
    let world =
        World::edited(&custom("ext", "to: [{operation: {paths: ['/c']}}]"), vec![("ext", kind(&server))], |policy| {
            policy.dry_run = true;
        });
    assert_eq!(world.short(&Call::get("/c")).await, "403 custom no-provider");
    assert_eq!(world.short(&Call::get("/d")).await, "200 default no-allow-policy");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn an_unknown_provider_denies_what_matches() {
    let zipkin = ProviderKind::Other("zipkin".into());
    for providers in [Vec::new(), vec![("ext", zipkin)]] {
        let world = World::new(&custom("ext", "to: [{operation: {paths: ['/c']}}]"), providers);
        assert_eq!(world.short(&Call::get("/c")).await, "403 custom no-provider");
        assert_eq!(world.short(&Call::get("/d")).await, "200 default no-allow-policy");
    }
}

/// Each seen on Envoy 1.40.
#[tokio::test]
async fn later_phases_see_what_the_provider_changed() {
    let text = [
        custom("ext", "to: [{operation: {paths: ['/c*']}}]"),
        policy("DENY", "to: [{operation: {paths: ['/admin'], hosts: ['web']}}]"),
        policy("DENY", "to: [{operation: {methods: [DELETE]}}, {operation: {hosts: ['evil']}}]"),
        policy("DENY", "when: [{key: 'request.headers[x-bad]', values: ['*']}]"),
        policy("ALLOW", "when: [{key: 'request.headers[x-role]', values: [admin]}]"),
    ]
    .concat();
    for (changes, headers, expected) in [
        (&[("x-role", "admin")][..], &[][..], "200 allow allow-matched"),
        (&[], &[], "403 default no-allow-matched"),
        (&[("x-role", "user")], &[("x-role", "admin")], "403 default no-allow-matched"),
        (&[("x-role", "admin"), ("x-bad", "1")], &[], "403 deny deny-matched"),
        (&[("x-role", "admin"), (":path", "/admin?x")], &[], "403 deny deny-matched"),
        (&[("x-role", "admin"), (":path", "/x/../admin")], &[], "200 allow allow-matched"),
        (&[("x-role", "admin"), (":method", "DELETE")], &[], "403 deny deny-matched"),
        (&[("x-role", "admin"), ("host", "evil")], &[], "403 deny deny-matched"),
    ] {
        let server = GrpcServer::saying(setting(changes)).await;
        let world = World::new(&text, vec![("ext", kind(&server))]);
        assert_eq!(world.short(&Call::get("/c").with(headers)).await, expected, "{changes:?}");
    }
    let ok = OkHttpResponse {
        headers_to_remove: vec!["x-bad".into()],
        headers: vec![option("x-role", "admin", None, 0)],
        ..OkHttpResponse::default()
    };
    let server = GrpcServer::saying(yes(ok)).await;
    let world = World::new(&text, vec![("ext", kind(&server))]);
    assert_eq!(world.short(&Call::get("/c").with(&[("X-Bad", "1")])).await, "200 allow allow-matched");
}

#[tokio::test]
async fn providers_see_the_token_and_the_workload_does_not() {
    let server = GrpcServer::saying(setting(&[("x-seen", "1")])).await;
    let text = [
        custom("ext", ""),
        token_rules(", outputClaimToHeaders: [{header: x-sub, claim: sub}]"),
        policy(
            "ALLOW",
            "from: [{source: {requestPrincipals: ['iss/*']}}]
    when:
    - {key: 'request.headers[authorization]', notValues: ['*']}
    - {key: 'request.headers[x-sub]', values: [alice]}",
        ),
    ]
    .concat();
    let world = World::new(&text, vec![("ext", kind(&server))]);
    let bearer = format!("Bearer {}", token());
    let call = Call::get("/").with(&[("authorization", &bearer), ("x-sub", "forged")]);
    let Judgement::Forward { edits, standing, permit, .. } = world.judge(&call).await else { panic!() };
    assert_eq!(permit.evaluation().phase, Phase::Allow);
    let mut headers = call.headers.clone();
    edits.apply(&mut headers);
    headers.sort();
    let pair = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    assert_eq!(headers, [pair("x-seen", "1"), pair("x-sub", "alice")]);
    assert_eq!(standing.claims().unwrap()["sub"], "alice");
    assert_eq!(standing.provider(), Some("ext"));
    let seen = server.seen().remove(0).attributes.unwrap().request.unwrap().http.unwrap().headers;
    assert_eq!((seen["authorization"].as_str(), seen["x-sub"].as_str()), (bearer.as_str(), "forged"));
}

/// A token that a provider sets is checked, one that it takes is not.
#[tokio::test]
async fn tokens_are_looked_for_where_the_provider_left_them() {
    let text =
        [custom("ext", ""), token_rules(""), policy("ALLOW", "from: [{source: {requestPrincipals: ['iss/alice']}}]")];
    let text = text.concat();
    let given = GrpcServer::saying(setting(&[("authorization", &format!("Bearer {}", token()))])).await;
    let world = World::new(&text, vec![("ext", kind(&given))]);
    let bad = [("authorization", "Bearer nonsense")];
    assert_eq!(world.short(&Call::get("/").with(&bad)).await, "200 allow allow-matched");
    let moved = GrpcServer::saying(setting(&[(":path", &format!("/?access_token={}", token()))])).await;
    let world = World::new(&text, vec![("ext", kind(&moved))]);
    assert_eq!(world.short(&Call::get("/")).await, "200 allow allow-matched");
}

/// CUSTOM runs on the request as it came, and once: what comes to match it behind its back does not ask.
#[tokio::test]
async fn edits_do_not_bring_the_provider_back() {
    let server = GrpcServer::saying(setting(&[("x-sub", "alice")])).await;
    let text = [
        custom("ext", "when: [{key: 'request.headers[x-sub]', values: [alice]}]"),
        token_rules(", outputClaimToHeaders: [{header: x-sub, claim: sub}]"),
    ];
    let world = World::new(&text.concat(), vec![("ext", kind(&server))]);
    let bearer = format!("Bearer {}", token());
    assert_eq!(world.short(&Call::get("/").with(&[("authorization", &bearer)])).await, "200 default no-allow-policy");
    assert!(server.seen().is_empty());
    assert_eq!(world.short(&Call::get("/").with(&[("x-sub", "alice")])).await, "200 default no-allow-policy");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn conditions_see_a_providers_metadata() {
    let (server, _) = http_server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let when = "when: [{key: 'experimental.envoy.filters.http.ext_authz[team]', values: [red]}]";
    let text = [custom("ext", "to: [{operation: {paths: ['/c']}}]"), policy("ALLOW", when)].concat();
    let silent = World::new(&text, vec![("ext", ProviderKind::ExtAuthzHttp(http(server.address)))]);
    assert_eq!(silent.short(&Call::get("/c")).await, "403 default no-allow-matched");
    let telling = GrpcServer::saying(crate::world::with_metadata("team", "red")).await;
    let world = World::new(&text, vec![("ext", kind(&telling))]);
    assert_eq!(world.short(&Call::get("/c")).await, "200 allow allow-matched");
    assert_eq!(world.short(&Call::get("/d")).await, "403 default no-allow-matched");
    let call = Call::get("/c");
    let Judgement::Forward { standing, .. } = world.judge(&call).await else { panic!() };
    assert!(call.ask(|request| world.gate.judge_again(request, &standing).is_allow()));
}

struct Body {
    bytes: &'static [u8],
    reads: Arc<AtomicUsize>,
}

impl BodySource for Body {
    fn read(&mut self, max: u32) -> Reading<'_> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let part = &self.bytes[..self.bytes.len().min(max as usize)];
        Box::pin(std::future::ready(Ok((part.into(), part.len() == self.bytes.len()))))
    }
}

/// Both fields make a tunnel; the first alone does not, and does not hide the body.
const UPGRADE: [(&str, &str); 2] = [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")];

/// Seen on Envoy 1.40: what fits is sent whole, what does not is cut or refused with 413.
#[tokio::test]
async fn bodies_are_read_for_the_provider_that_wants_them() {
    let reads = Arc::new(AtomicUsize::new(0));
    for (bytes, allow_partial, path, headers, expected, seen) in [
        (&b"12345678"[..], false, "/c", &[][..], "200 default no-allow-policy", Some(("12345678", Some("false")))),
        (b"123456789", false, "/c", &[], "413 custom custom-denied Payload Too Large", None),
        (b"123456789", true, "/c", &[], "200 default no-allow-policy", Some(("12345678", Some("true")))),
        (b"", false, "/c", &[], "200 default no-allow-policy", Some(("", None))),
        (b"123456789", false, "/c", &UPGRADE, "200 default no-allow-policy", Some(("", None))),
        (b"123456789", false, "/c", &UPGRADE[..1], "413 custom custom-denied Payload Too Large", None),
        (b"123456789", false, "/d", &[], "200 default no-allow-policy", None),
    ] {
        let server = GrpcServer::saying(allowed()).await;
        let mut config = grpc(server.address);
        config.body = Some(CheckBody { max_bytes: 8, allow_partial, pack_as_bytes: false });
        let text = custom("ext", "to: [{operation: {paths: ['/c']}}]");
        let world = World::new(&text, vec![("ext", ProviderKind::ExtAuthzGrpc(config))]);
        let mut body = Body { bytes, reads: Arc::clone(&reads) };
        let judgement = world.judge_with(&Call::get(path).with(headers), &mut body).await;
        assert_eq!(crate::world::status(&judgement), expected, "{bytes:?}");
        let http = server.seen().pop().map(|question| question.attributes.unwrap().request.unwrap().http.unwrap());
        let partial = http.as_ref().map(|http| http.headers.get("x-envoy-auth-partial-body").map(String::as_str));
        assert_eq!(http.as_ref().map(|http| http.body.as_str()).zip(partial), seen, "{bytes:?}");
    }
    assert_eq!(reads.load(Ordering::SeqCst), 5, "no body is read that nobody wants");
}

#[tokio::test]
async fn a_caller_that_goes_away_while_its_body_is_awaited() {
    struct Gone;
    impl BodySource for Gone {
        fn read(&mut self, _: u32) -> Reading<'_> {
            Box::pin(std::future::ready(Err(std::io::ErrorKind::ConnectionReset.into())))
        }
    }
    let mut config = grpc(nobody().await);
    (config.fail_open, config.body) =
        (true, Some(CheckBody { max_bytes: 8, allow_partial: true, pack_as_bytes: true }));
    let world = World::new(&custom("ext", ""), vec![("ext", ProviderKind::ExtAuthzGrpc(config))]);
    let judgement = world.judge_with(&Call::get("/"), &mut Gone).await;
    assert_eq!(crate::world::status(&judgement), "400 custom custom-error ");
}

#[tokio::test]
async fn open_requests_are_judged_again_without_asking_anybody() {
    let server = GrpcServer::saying(setting(&[("x-role", "admin")])).await;
    let allow = policy("ALLOW", "when: [{key: 'request.headers[x-role]', values: [admin]}]");
    let ask = |provider| custom(provider, "to: [{operation: {paths: ['/c']}}]");
    let providers = || vec![("ext", kind(&server)), ("other", kind(&server))];
    let world = World::new(&[ask("ext"), allow.clone()].concat(), providers());
    let call = Call::get("/c");
    let Judgement::Forward { standing, .. } = world.judge(&call).await else { panic!() };
    let deny = policy("DENY", "when: [{key: 'request.headers[x-role]', values: [admin]}]");
    for (text, expected) in [
        (ask("ext") + &allow, "allow"),
        (allow.clone(), "allow"),
        (ask("ext") + &deny, "deny"),
        (ask("other") + &allow, "custom"),
        (ask("nobody") + &allow, "custom"),
    ] {
        let now = World::new(&text, providers());
        let decision = call.ask(|request| now.gate.judge_again(request, &standing));
        assert_eq!(decision.evaluation().phase.as_str(), expected, "{text}");
        let fresh = call.ask(|request| now.gate.judge_again(request, &Default::default()).is_allow());
        assert!(!fresh, "without the provider's yes and its header: {text}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn what_is_not_known_stays_undecided() {
    let text =
        [custom("ext", "to: [{operation: {paths: ['/c']}}]"), policy("DENY", "to: [{operation: {methods: [POST]}}]")];
    let world = World::new(&text.concat(), vec![("ext", ProviderKind::ExtAuthzGrpc(grpc(nobody().await)))]);
    let call = Call::get("/c");
    for (known, expected) in [
        (Known::ALL.without(palisade_authz::Attribute::Path), Outcome::Undecided),
        (Known::ALL.without(palisade_authz::Attribute::SourceIp), Outcome::Deny),
    ] {
        let judgement = world.judge_known(&call, known, &mut NoBody).await;
        assert_eq!(judgement.evaluation().outcome, expected);
    }
    let tokens = World::new(
        &[token_rules(""), policy("ALLOW", "from: [{source: {requestPrincipals: ['*']}}]")].concat(),
        Vec::new(),
    );
    let known = Known::ALL.without(palisade_authz::Attribute::Headers);
    let Judgement::Refuse { denial, .. } = tokens.judge_known(&call, known, &mut NoBody).await else { panic!() };
    assert_eq!((denial.evaluation().outcome, denial.reason()), (Outcome::Undecided, "undecided"));
    // Policies that ask no claims would allow; but the token that is not seen may be refused.
    let tokens = World::new(&token_rules(""), Vec::new());
    let judgement = tokens.judge_known(&call, known, &mut NoBody).await;
    assert_eq!((judgement.evaluation().outcome, judgement.evaluation().phase), (Outcome::Undecided, Phase::Authn));
}

#[test]
fn a_refusal_for_grpc_callers_is_trailers_alone() {
    let denied = Response {
        status: 401,
        headers: vec![("x-a".into(), b"1".to_vec()), ("content-type".into(), b"text/plain".to_vec())],
        body: "go% \n".into(),
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let grpc = denied.for_grpc();
    assert_eq!((grpc.status, grpc.body.len()), (200, 0));
    assert_eq!(
        grpc.headers,
        [
            pair("x-a", "1"),
            pair("content-type", "application/grpc"),
            pair("grpc-status", "16"),
            pair("grpc-message", "go%25%20%0A")
        ]
    );
    for (status, code) in
        [(400, "13"), (401, "16"), (403, "7"), (404, "12"), (429, "14"), (503, "14"), (302, "2"), (777, "2")]
    {
        let headers = Response::text(status, "").for_grpc().headers;
        assert_eq!(headers, [pair("content-type", "application/grpc"), pair("grpc-status", code)]);
    }
    let own = Response { headers: vec![pair("grpc-status", "5")], ..Response::text(403, "") };
    assert_eq!(own.for_grpc().headers, [pair("grpc-status", "5"), pair("content-type", "application/grpc")]);
}
