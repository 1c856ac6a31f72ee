//! What Envoy 1.40 does with an HTTP provider's answers, configured as Istio configures it. Each row was seen on it.

use palisade_authz::provider::Verdict;
use palisade_policies::{ExtAuthzHttp, ProviderKind};

use crate::support::{http, http_server, providers, request, short};

async fn verdict(answer: &'static str, adjust: impl Fn(&mut ExtAuthzHttp)) -> Verdict {
    let (server, _) = http_server(answer).await;
    let mut config = http(server.address);
    adjust(&mut config);
    providers(ProviderKind::ExtAuthzHttp(config)).check("ext", &request()).await
}

fn listed(config: &mut ExtAuthzHttp) {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    config.headers_to_upstream_on_allow = list(&["x-up-*", "X-A", "x-both", "transfer-*", "content-length"]);
    config.headers_to_downstream_on_deny = list(&["x-deny", "Set-Cookie"]);
    config.headers_to_downstream_on_allow = list(&["x-down-*", "set-cookie", "x-both", "connection"]);
}

const ALLOW: &str = "HTTP/1.1 200 OK\r\nx-up-1: p\r\nX-Up-1: q\r\nx-both: p\r\nx-down-1: d\r\nset-cookie: a=1\r\n\
    x-other: o\r\nx-a: new\r\nx-envoy-auth-headers-to-remove: x-b, cookie,,host\r\nconnection: keep-alive\r\n\
    content-length: 7\r\n\r\nignored";

fn headers(verdict: Verdict) -> (String, String) {
    let text = |headers: &[(String, Vec<u8>)]| {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
        lines.sort();
        lines.join(" ")
    };
    let Verdict::Approved { edits, response_headers, .. } = verdict else { panic!("{}", short(&verdict)) };
    assert!(edits.target.is_none() && edits.host.is_none() && edits.method.is_none());
    let (mut upstream, mut downstream) = (request().headers, Vec::new());
    edits.apply(&mut upstream);
    response_headers.apply(&mut downstream);
    (text(&upstream), text(&downstream))
}

#[tokio::test]
async fn an_allowing_answer_gives_and_takes_what_is_listed() {
    let (upstream, downstream) = headers(verdict(ALLOW, listed).await);
    assert_eq!(upstream, "accept=a1 accept=a2 x-a=new x-both=p x-up-1=q");
    assert_eq!(downstream, "set-cookie=a=1 x-both=p x-down-1=d");
}

#[tokio::test]
async fn without_lists_an_allowing_answer_only_takes() {
    let (upstream, downstream) = headers(verdict(ALLOW, |_| {}).await);
    assert_eq!((upstream.as_str(), downstream.as_str()), ("X-A=1 accept=a1 accept=a2 x-a=2", ""));
}

const DENY: &str = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\nx-deny: 1\r\nx-other: o\r\n\
    content-type: application/json\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nlocation: /l\r\n\
    x-envoy-auth-headers-to-remove: x-b\r\nkeep-alive: timeout=5\r\ntransfer-encoding: chunked\r\n\r\n\
    2\r\n{}\r\n0\r\n\r\n";

#[tokio::test]
async fn a_refusing_answer_is_passed_on_as_listed_or_whole() {
    for (answer, lists, expected) in [
        (
            DENY,
            true,
            "401 [www-authenticate=Basic x-deny=1 set-cookie=a=1 set-cookie=b=2 location=/l \
             content-type=text/plain] {}",
        ),
        (
            DENY,
            false,
            "401 [www-authenticate=Basic x-deny=1 x-other=o content-type=application/json set-cookie=a=1 \
             set-cookie=b=2 location=/l] {}",
        ),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", false, "403 [] "),
        (
            "HTTP/1.1 302 Found\r\nlocation: https://idp/\r\ncontent-length: 0\r\n\r\n",
            true,
            "302 [location=https://idp/] ",
        ),
        ("HTTP/1.1 201 Created\r\nx-up-1: p\r\ncontent-length: 1\r\n\r\nc", true, "201 [content-type=text/plain] c"),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, "204 [] "),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", false, "304 [] "),
    ] {
        let verdict = verdict(answer, |config| {
            if lists {
                listed(config)
            }
        })
        .await;
        assert_eq!(short(&verdict), format!("custom-denied {expected}"));
    }
}

#[tokio::test]
async fn a_server_error_is_no_answer() {
    let answer = "HTTP/1.1 503 Service Unavailable\r\nx-deny: 1\r\ncontent-length: 4\r\n\r\nboom";
    assert_eq!(short(&verdict(answer, listed).await), "custom-error 403 [] ");
    assert_eq!(short(&verdict(answer, |config| config.status_on_error = Some(500)).await), "custom-error 500 [] ");
    assert_eq!(short(&verdict(answer, |config| config.fail_open = true).await), "ok ext");
}

#[tokio::test]
async fn informational_answers_are_waited_through() {
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(short(&verdict(answer, |_| {}).await), "ok ext");
}
