//! The gate of connections without HTTP.

use palisade_authz::provider::{CheckRequest, Party};
use palisade_authz::{Denial, Permit, Request, gate::Standing};
use palisade_policies::ProviderKind;
use palisade_wire::envoy::envoy::service::auth::v3::CheckResponse;

use crate::support::{GrpcServer, grpc, http, http_server, nobody, refusing, setting};
use crate::world::{World, custom, policy, with_metadata};

async fn judge(world: &World) -> Result<(Permit, Standing), Denial> {
    let check = || CheckRequest {
        source: Party { principal: Some("td/ns/a/sa/b".into()), ..Party::default() },
        sni: Some("db.shop".into()),
        ..CheckRequest::default()
    };
    let request = Request { sni: Some("db.shop"), ..Request::default() };
    world.gate.judge_connection(&request, &check).await
}

async fn short(world: &World) -> String {
    match judge(world).await {
        Ok((permit, _)) => format!("allow {}", permit.evaluation().reason()),
        Err(denial) => format!("{} {}", denial.evaluation().phase.as_str(), denial.reason()),
    }
}

fn kind(server: &GrpcServer) -> ProviderKind {
    ProviderKind::ExtAuthzGrpc(grpc(server.address))
}

/// An HTTP field of a CUSTOM rule imposes nothing on a connection: the rule widens.
#[tokio::test]
async fn grpc_providers_judge_connections() {
    for (answer, expected) in [
        (CheckResponse::default(), "allow no-allow-policy"),
        // What a yes changes in a request has no meaning here, not even if it is malformed.
        (setting(&[("x a", "\r\n")]), "allow no-allow-policy"),
        (refusing(401, Vec::new(), "no"), "custom custom-denied"),
    ] {
        let server = GrpcServer::saying(answer).await;
        let world = World::tcp(&custom("ext", "to: [{operation: {methods: [GET]}}]"), vec![("ext", kind(&server))]);
        assert_eq!(short(&world).await, expected);
        let told = server.seen().remove(0).attributes.unwrap();
        assert!(told.request.is_none());
        assert_eq!(told.destination.unwrap().service, "db.shop");
        assert_eq!(told.source.unwrap().principal, "spiffe://td/ns/a/sa/b");
    }
}

#[tokio::test]
async fn a_yes_on_a_connection_does_not_excuse_from_policy() {
    let server = GrpcServer::saying(with_metadata("team", "red")).await;
    let when =
        |team| format!("when: [{{key: 'experimental.envoy.filters.network.ext_authz[team]', values: [{team}]}}]");
    for (team, expected) in [("red", "allow allow-matched"), ("blue", "default no-allow-matched")] {
        let text = custom("ext", "") + &policy("ALLOW", &when(team));
        assert_eq!(short(&World::tcp(&text, vec![("ext", kind(&server))])).await, expected);
    }
}

#[tokio::test]
async fn http_providers_have_no_say_on_connections() {
    let (server, seen) = http_server("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").await;
    let world = World::tcp(&custom("ext", ""), vec![("ext", ProviderKind::ExtAuthzHttp(http(server.address)))]);
    assert_eq!(short(&world).await, "allow no-allow-policy");
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_provider_of_connections_that_is_down() {
    for (fail_open, expected) in [(false, "custom custom-error"), (true, "allow no-allow-policy")] {
        let mut config = grpc(nobody().await);
        config.fail_open = fail_open;
        let world = World::tcp(&custom("ext", ""), vec![("ext", ProviderKind::ExtAuthzGrpc(config))]);
        assert_eq!(short(&world).await, expected);
    }
}

#[tokio::test]
async fn open_connections_keep_the_yes_of_their_provider() {
    let server = GrpcServer::saying(CheckResponse::default()).await;
    let providers = || vec![("ext", kind(&server)), ("other", kind(&server))];
    let (_, standing) = judge(&World::tcp(&custom("ext", ""), providers())).await.unwrap();
    let request = Request::default();
    for (text, allowed) in
        [(custom("ext", ""), true), (String::new(), true), (custom("other", ""), false), (policy("DENY", ""), false)]
    {
        let now = World::tcp(&text, providers());
        assert_eq!(now.gate.judge_again(&request, &standing).is_allow(), allowed, "{text}");
    }
}
