//! What Envoy 1.40 does with a gRPC provider's answers, configured as Istio configures it. Each row was seen on it.

use palisade_authz::provider::Verdict;
use palisade_policies::ProviderKind;
use palisade_wire::envoy::envoy::service::auth::v3::check_response::HttpResponse;
use palisade_wire::envoy::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};

use crate::support::{
    GrpcServer, denied, grpc, no, option, parameter, providers, refusing, request, setting, short, yes,
};

/// What the workload gets: request line, host, and the headers in the order `x-a x-b x-new accept cookie x-ok te`.
fn forwarded(verdict: &Verdict) -> String {
    let Verdict::Approved { edits, .. } = verdict else { panic!("{}", short(verdict)) };
    let request = request();
    let mut headers = request.headers.clone();
    edits.apply(&mut headers);
    let mut text = format!(
        "{} {} {}",
        edits.method.as_ref().or(request.method.as_ref()).unwrap(),
        edits.target.as_ref().or(request.target.as_ref()).unwrap(),
        edits.host.as_ref().or(request.host.as_ref()).unwrap(),
    );
    for name in ["x-a", "x-b", "x-new", "accept", "cookie", "x-ok", "te", "connection", "content-length"] {
        for (_, value) in headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)) {
            text.push_str(&format!(" {name}={}", String::from_utf8_lossy(value)));
        }
    }
    // A list of two in one field and two fields are the same to everybody; Envoy holds this one in one piece.
    text.replace("accept=a1 accept=a2", "accept=a1,a2")
}

async fn verdict(answer: CheckResponse) -> Verdict {
    let server = GrpcServer::saying(answer).await;
    providers(ProviderKind::ExtAuthzGrpc(grpc(server.address))).check("ext", &request()).await
}

const LINE: &str = "GET /pA?b=2&a&c=3&b=4 Web.example:80";

/// Name of the row, the headers the provider sends (name, value, append, action), and what the workload gets.
type Row = (&'static str, &'static [(&'static str, &'static str, Option<bool>, i32)], &'static str);

const REQUEST_HEADERS: [Row; 18] = [
    ("none", &[], "x-a=1 x-a=2 x-b=b accept=a1,a2 cookie=c=1"),
    (
        "no action says set",
        &[("x-a", "p", None, 0), ("x-new", "p", None, 0), ("accept", "p", None, 0)],
        "x-a=p x-b=b x-new=p accept=p cookie=c=1",
    ),
    (
        "append joins what is there",
        &[("x-a", "p", Some(true), 0), ("x-new", "p", Some(true), 0), ("accept", "p", Some(true), 0)],
        "x-a=1,p x-a=2 x-b=b accept=a1,a2,p cookie=c=1",
    ),
    (
        "append false sets",
        &[("x-a", "p", Some(false), 0), ("x-new", "p", Some(false), 0)],
        "x-a=p x-b=b x-new=p accept=a1,a2 cookie=c=1",
    ),
    (
        "add if absent sets",
        &[("x-a", "p", None, 1), ("x-new", "p", None, 1), ("x-new", "r", None, 1)],
        "x-a=p x-b=b x-new=r accept=a1,a2 cookie=c=1",
    ),
    (
        "overwrite or add sets",
        &[("x-a", "p", None, 2), ("x-new", "p", None, 2)],
        "x-a=p x-b=b x-new=p accept=a1,a2 cookie=c=1",
    ),
    (
        "overwrite if exists sets",
        &[("x-a", "p", None, 3), ("x-new", "p", None, 3)],
        "x-a=p x-b=b x-new=p accept=a1,a2 cookie=c=1",
    ),
    ("an unknown action sets", &[("x-a", "p", None, 77)], "x-a=p x-b=b accept=a1,a2 cookie=c=1"),
    ("the last one stays", &[("x-a", "s", None, 2), ("x-a", "t", None, 0)], "x-a=t x-b=b accept=a1,a2 cookie=c=1"),
    (
        "joined after all are set",
        &[("x-a", "t", Some(true), 0), ("x-a", "s", None, 2)],
        "x-a=s,t x-b=b accept=a1,a2 cookie=c=1",
    ),
    (
        "joined to a new one",
        &[
            ("x-new", "t", Some(true), 0),
            ("x-new", "s", None, 0),
            ("x-b", "j1", Some(true), 0),
            ("x-b", "j2", Some(true), 0),
        ],
        "x-a=1 x-a=2 x-b=b,j1,j2 x-new=s,t accept=a1,a2 cookie=c=1",
    ),
    (
        "nothing joins nothing",
        &[("x-b", "", Some(true), 0), ("x-new", "", None, 0), ("x-new", "t", Some(true), 0)],
        "x-a=1 x-a=2 x-b=b x-new=t accept=a1,a2 cookie=c=1",
    ),
    (
        "cookies have their own delimiter",
        &[("cookie", "z=1", Some(true), 0)],
        "x-a=1 x-a=2 x-b=b accept=a1,a2 cookie=c=1; z=1",
    ),
    ("an empty value", &[("x-a", "", None, 2)], "x-a= x-b=b accept=a1,a2 cookie=c=1"),
    ("outer spaces go", &[("x-a", "  p ", None, 2)], "x-a=p x-b=b accept=a1,a2 cookie=c=1"),
    ("upper case", &[("X-A", "p", None, 2)], "x-a=p x-b=b accept=a1,a2 cookie=c=1"),
    // Here we are stricter: Envoy forwards these two, and hangs on a length that is not true.
    (
        "hop by hop",
        &[("connection", "x-a", None, 2), ("te", "trailers", None, 2), ("x-ok", "1", None, 2)],
        "x-a=1 x-a=2 x-b=b accept=a1,a2 cookie=c=1 x-ok=1",
    ),
    ("length", &[("content-length", "5", None, 2)], "x-a=1 x-a=2 x-b=b accept=a1,a2 cookie=c=1"),
];

#[tokio::test]
async fn request_headers_change_as_in_envoy() {
    for (row, headers, expected) in REQUEST_HEADERS {
        let headers = headers.iter().map(|(name, value, append, action)| option(name, value, *append, *action));
        let answer = yes(OkHttpResponse { headers: headers.collect(), ..OkHttpResponse::default() });
        assert_eq!(forwarded(&verdict(answer).await), format!("{LINE} {expected}"), "{row}");
    }
}

#[tokio::test]
async fn pseudo_headers_change_as_in_envoy() {
    let rest = "x-a=1 x-a=2 x-b=b accept=a1,a2 cookie=c=1";
    let all = [(":path", "/new/./x?q=1"), (":authority", "new.host"), (":method", "PUT"), (":scheme", "https")];
    for (headers, expected) in [
        (&all[..], "PUT /new/./x?q=1 new.host"),
        (&[("host", "other")], "GET /pA?b=2&a&c=3&b=4 other"),
        (&[("Host", "Web.example:80")], LINE),
    ] {
        assert_eq!(forwarded(&verdict(setting(headers)).await), format!("{expected} {rest}"));
    }
}

#[tokio::test]
async fn removal_comes_after_setting_and_spares_what_a_request_needs() {
    let remove = ["X-A", ":path", "host", "Host", "x-b", "bad name", "", "content-length"].map(str::to_owned);
    let ok = OkHttpResponse {
        headers: vec![option("x-b", "s", None, 2)],
        headers_to_remove: remove.to_vec(),
        ..OkHttpResponse::default()
    };
    let verdict = verdict(yes(ok)).await;
    assert_eq!(forwarded(&verdict), format!("{LINE} accept=a1,a2 cookie=c=1"));
    let Verdict::Approved { edits, .. } = verdict else { panic!() };
    assert_eq!(edits.remove, ["x-a", "x-b"]);
}

#[tokio::test]
async fn query_parameters_change_the_path_as_it_is_then() {
    let ok = OkHttpResponse {
        headers: vec![option(":path", "/n?m=1", None, 2)],
        query_parameters_to_set: vec![parameter("z", "9")],
        query_parameters_to_remove: vec!["c".into()],
        ..OkHttpResponse::default()
    };
    let rest = "x-a=1 x-a=2 x-b=b accept=a1,a2 cookie=c=1";
    assert_eq!(forwarded(&verdict(yes(ok.clone())).await), format!("GET /n?m=1&z=9 Web.example:80 {rest}"));
    let ok = OkHttpResponse { headers: Vec::new(), ..ok };
    assert_eq!(forwarded(&verdict(yes(ok)).await), format!("GET /pA?a=&b=2&b=4&z=9 Web.example:80 {rest}"));
}

/// The changes of a response that has `x-up: u1` and `x-up: u2`.
const RESPONSE_HEADERS: [Row; 9] = [
    ("no action says add", &[("x-up", "p", None, 0), ("x-f", "p", None, 0)], "x-up=u1 x-up=u2 x-up=p x-f=p"),
    ("append adds", &[("x-up", "p", Some(true), 0), ("x-f", "p", Some(true), 0)], "x-up=u1 x-up=u2 x-up=p x-f=p"),
    ("append false sets", &[("x-up", "p", Some(false), 0), ("x-f", "p", Some(false), 0)], "x-up=p x-f=p"),
    ("if absent", &[("x-up", "p", None, 1), ("x-f", "p", None, 1)], "x-up=u1 x-up=u2 x-f=p"),
    ("overwrite or add", &[("x-up", "p", None, 2), ("x-f", "p", None, 2)], "x-up=p x-f=p"),
    ("if exists", &[("x-up", "p", None, 3), ("x-f", "p", None, 3)], "x-up=p"),
    (
        "in Envoy's order",
        &[
            ("x-up", "s", None, 2),
            ("x-up", "t", None, 0),
            ("x-f", "t", None, 0),
            ("x-f", "s", None, 2),
            ("x-g", "a", None, 1),
            ("x-g", "b", None, 1),
        ],
        "x-up=s x-f=s x-g=a",
    ),
    (
        "two of a name",
        &[
            ("set-cookie", "a", None, 0),
            ("set-cookie", "b", None, 0),
            ("x-up", "p", None, 3),
            ("x-up", "q", None, 3),
            ("x-up", "r", None, 1),
        ],
        "set-cookie=a set-cookie=b x-up=q",
    ),
    // Here we are stricter: Envoy lets a provider change the status of the workload's response.
    (
        "no pseudo-headers, no framing",
        &[(":status", "299", None, 2), ("connection", "close", None, 2), ("host", "h", None, 0)],
        "x-up=u1 x-up=u2",
    ),
];

#[tokio::test]
async fn response_headers_change_as_in_envoy() {
    for (row, headers, expected) in RESPONSE_HEADERS {
        let headers = headers.iter().map(|(name, value, append, action)| option(name, value, *append, *action));
        let ok = OkHttpResponse { response_headers_to_add: headers.collect(), ..OkHttpResponse::default() };
        let verdict = verdict(yes(ok)).await;
        let Verdict::Approved { response_headers, .. } = verdict else { panic!("{row}") };
        let mut all = vec![("X-Up".to_owned(), b"u1".to_vec()), ("x-up".to_owned(), b"u2".to_vec())];
        response_headers.apply(&mut all);
        let text = |(name, value): &(String, Vec<u8>)| {
            format!("{}={}", name.to_ascii_lowercase(), String::from_utf8_lossy(value))
        };
        assert_eq!(all.iter().map(text).collect::<Vec<_>>().join(" "), expected, "{row}");
    }
}

#[tokio::test]
async fn refusals_are_answered_as_by_envoy() {
    let plain = |status, body| refusing(status, Vec::new(), body);
    let full = vec![
        option("www-authenticate", "Basic", None, 0),
        option("set-cookie", "a=1", None, 0),
        option("set-cookie", "b=2", Some(true), 0),
        option("x-d", "1", None, 2),
        option("x-d", "2", None, 1),
        option("x-d", "3", None, 3),
    ];
    let json = || vec![option("content-type", "application/json", None, 0), option("content-length", "7", None, 0)];
    let framing = vec![option("connection", "close", None, 0), option("transfer-encoding", "chunked", None, 0)];
    for (answer, expected) in [
        (no(None), "403 [] "),
        (no(Some(HttpResponse::OkResponse(OkHttpResponse::default()))), "403 [] "),
        (
            refusing(401, full, "go"),
            "401 [www-authenticate=Basic set-cookie=a=1 x-d=1 x-d=2 x-d=3 content-type=text/plain] go",
        ),
        (refusing(403, json(), "{}"), "403 [content-type=application/json] {}"),
        (refusing(403, json(), ""), "403 [] "),
        (refusing(403, framing, "abc"), "403 [content-type=text/plain] abc"),
        (plain(200, "login"), "200 [content-type=text/plain] login"),
        (refusing(302, vec![option("location", "https://idp/", None, 0)], ""), "302 [location=https://idp/] "),
        (plain(0, ""), "403 [] "),
        (plain(204, "b"), "204 [] "),
        (plain(777, "b"), "777 [content-type=text/plain] b"),
        (refusing(401, vec![option(":status", "200", None, 0)], "b"), "401 [content-type=text/plain] b"),
    ] {
        assert_eq!(short(&verdict(answer).await), format!("custom-denied {expected}"));
    }
}

#[tokio::test]
async fn the_status_code_decides_and_nothing_is_a_yes() {
    let denied = Some(HttpResponse::DeniedResponse(denied(401, Vec::new(), "n")));
    let ok_with_denial = CheckResponse { http_response: denied, ..yes(OkHttpResponse::default()) };
    for answer in [CheckResponse::default(), ok_with_denial] {
        assert_eq!(short(&verdict(answer).await), "ok ext");
    }
}

/// An error that the provider tells is its own response, unless the provider fails open.
#[tokio::test]
async fn told_errors_go_by_the_configuration() {
    let told =
        |status| no(Some(HttpResponse::ErrorResponse(denied(status, vec![option("x-e", "1", Some(true), 0)], "oops"))));
    for (answer, status_on_error, expected) in [
        (told(502), None, "502 [x-e=1 content-type=text/plain] oops"),
        (told(0), None, "403 [x-e=1 content-type=text/plain] oops"),
        (told(0), Some(500), "500 [x-e=1 content-type=text/plain] oops"),
    ] {
        let server = GrpcServer::saying(answer).await;
        let mut config = grpc(server.address);
        config.status_on_error = status_on_error;
        let closed = providers(ProviderKind::ExtAuthzGrpc(config.clone())).check("ext", &request()).await;
        assert_eq!(short(&closed), format!("custom-error {expected}"));
        config.fail_open = true;
        let open = providers(ProviderKind::ExtAuthzGrpc(config)).check("ext", &request()).await;
        assert_eq!(forwarded(&open), format!("{LINE} x-a=1 x-a=2 x-b=b accept=a1,a2 cookie=c=1"));
    }
}
