//! Whatever a provider answers: nothing panics, and nothing comes through that could not be forwarded.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use palisade_policies::{ExtAuthzHttp, ExtensionProvider, MeshConfig, ProviderKind};
use palisade_wire::envoy::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use palisade_wire::envoy::envoy::service::auth::v3::check_response::HttpResponse;
use palisade_wire::envoy::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use palisade_wire::envoy::envoy::r#type::v3::HttpStatus;
use palisade_wire::envoy::google::protobuf::BoolValue;
use palisade_wire::envoy::google::rpc::Status;
use proptest::prelude::*;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::{Answer, Failure};
use super::*;
use crate::edits::Edits;

fn asked() -> CheckRequest {
    CheckRequest {
        method: Some("GET".into()),
        target: Some("/p?a=1&b".into()),
        host: Some("web".into()),
        headers: vec![("x-a".into(), b"1".to_vec()), ("X-A".into(), b"2".to_vec()), ("accept".into(), b"a".to_vec())],
        ..CheckRequest::default()
    }
}

fn field_is_sound((name, value): &(String, Vec<u8>)) {
    let token =
        |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte) && !byte.is_ascii_uppercase();
    assert!(!name.is_empty() && name.bytes().all(token), "{name:?}");
    assert!(!["connection", "content-length", "transfer-encoding", "te", "upgrade", "host"].contains(&name.as_str()));
    assert!(!value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)), "{name}: {value:?}");
    assert_eq!(value.trim_ascii(), value.as_slice(), "{name}");
}

fn edits_are_sound(edits: &Edits) {
    edits.set.iter().chain(&edits.append).for_each(field_is_sound);
    let mut names: Vec<&String> = edits.set.iter().map(|(name, _)| name).collect();
    names.dedup();
    assert_eq!(names.len(), edits.set.len());
    for name in &edits.remove {
        assert!(!name.starts_with(':') && name != "host" && !name.is_empty(), "{name:?}");
    }
    if let Some(target) = &edits.target {
        assert!(target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic()), "{target:?}");
    }
    assert!(
        edits.host.as_ref().is_none_or(
            |host| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"@/?#\\,".contains(&b))
        )
    );
    assert!(edits.method.as_ref().is_none_or(|method| method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')));
}

fn changes_are_sound(edits: &Edits, response: &ResponseEdits) {
    edits_are_sound(edits);
    let mut headers = vec![("X-Up".to_owned(), b"u".to_vec())];
    response.apply(&mut headers);
    headers.iter().filter(|(name, _)| name != "X-Up").for_each(field_is_sound);
}

fn response_is_sound(response: &Response) {
    assert!((200..1000).contains(&response.status));
    response.headers.iter().for_each(field_is_sound);
    response.for_grpc().headers.iter().for_each(field_is_sound);
}

fn answer_is_sound(answer: &Result<Answer, Failure>) {
    match answer {
        Ok(Answer::Allowed(changes)) => changes_are_sound(&changes.edits, &changes.response),
        Ok(Answer::Denied(response)) | Err(Failure::Told(_, response)) => response_is_sound(response),
        Err(_) => {}
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z-]{0,12}",
        prop::sample::select(vec![
            "x-a",
            "X-A",
            "accept",
            "cookie",
            ":path",
            ":authority",
            "host",
            ":method",
            ":scheme",
            ":status",
            "connection",
            "content-length",
            "te",
            "a"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        "/[a-z?=&#% ]{0,8}",
        prop::sample::select(vec!["", " ", "a\r\nb: c", "\n", "\0", "é", "GET", "CONNECT"]).prop_map(str::to_owned),
        any::<String>()
    ]
}

prop_compose! {
    fn option()(key in name(), value in text(), append in any::<Option<bool>>(), action in -1..5) -> HeaderValueOption {
        #[expect(deprecated, reason = "providers still send it")]
        let option = HeaderValueOption {
            header: Some(HeaderValue { key, value, ..HeaderValue::default() }),
            append: append.map(|value| BoolValue { value }),
            append_action: action,
            keep_empty_value: false,
        };
        option
    }
}

fn options() -> impl Strategy<Value = Vec<HeaderValueOption>> {
    prop::collection::vec(option(), 0..4)
}

prop_compose! {
    fn ok()(
        headers in options(),
        response_headers_to_add in options(),
        headers_to_remove in prop::collection::vec(name(), 0..3),
        set in prop::collection::vec((text(), text()), 0..2),
        query_parameters_to_remove in prop::collection::vec(text(), 0..2),
    ) -> OkHttpResponse {
        OkHttpResponse {
            headers,
            response_headers_to_add,
            headers_to_remove,
            query_parameters_to_set: set.into_iter().map(|(key, value)| QueryParameter { key, value }).collect(),
            query_parameters_to_remove,
            ..OkHttpResponse::default()
        }
    }
}

prop_compose! {
    fn denied()(
        code in prop_oneof![Just(0), 90..1100, any::<i32>()],
        headers in options(),
        body in text(),
    ) -> DeniedHttpResponse {
        DeniedHttpResponse { status: Some(HttpStatus { code }), headers, body }
    }
}

prop_compose! {
    fn answer()(code in 0..2, http_response in prop_oneof![
        Just(None),
        ok().prop_map(|ok| Some(HttpResponse::OkResponse(ok))),
        denied().prop_map(|denied| Some(HttpResponse::DeniedResponse(denied))),
        denied().prop_map(|denied| Some(HttpResponse::ErrorResponse(denied))),
    ]) -> CheckResponse {
        CheckResponse { status: Some(Status { code, ..Status::default() }), http_response, dynamic_metadata: None }
    }
}

/// Hears a question and says what it was made with.
struct Canned(Vec<u8>);

impl Dial for Canned {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> Dialing<'a> {
        let said = Said { answer: Cursor::new(self.0.clone()), asked: false, waiting: None };
        Box::pin(std::future::ready(Ok(Box::new(said) as Box<dyn Io>)))
    }
}

/// Silent until it is asked: nobody answers before.
struct Said {
    answer: Cursor<Vec<u8>>,
    asked: bool,
    waiting: Option<Waker>,
}

impl AsyncRead for Said {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.asked {
            return Pin::new(&mut self.answer).poll_read(cx, buf);
        }
        self.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Said {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn over_http(answer: Vec<u8>) -> Verdict {
    let names = vec!["x-*".to_owned(), "*-e".to_owned()];
    let config = ExtAuthzHttp {
        service: "ext".into(),
        port: 80,
        timeout: Duration::from_secs(600),
        fail_open: false,
        status_on_error: None,
        body: None,
        clear_route_cache: false,
        path_prefix: String::new(),
        include_headers: Vec::new(),
        include_additional: BTreeMap::new(),
        headers_to_upstream_on_allow: names.clone(),
        headers_to_downstream_on_allow: names,
        headers_to_downstream_on_deny: Vec::new(),
    };
    let provider = ExtensionProvider { name: "ext".into(), kind: ProviderKind::ExtAuthzHttp(config) };
    let mesh = MeshConfig { extension_providers: vec![provider], ..MeshConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(Providers::new(&mesh, Arc::new(Canned(answer))).check("ext", &asked()))
}

fn verdict_is_sound(verdict: &Verdict) {
    match verdict {
        Verdict::Approved { edits, response_headers, .. } => changes_are_sound(edits, response_headers),
        Verdict::Refused { response, .. } => response_is_sound(response),
    }
}

proptest! {
    #[test]
    fn any_message_is_obeyed_soundly_or_not_at_all(answer in answer(), tcp in any::<bool>()) {
        let read = grpc::read(answer, &CheckRequest { tcp, ..asked() });
        answer_is_sound(&read);
    }

    #[test]
    fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(answer) = CheckResponse::decode(bytes.as_slice()) {
            answer_is_sound(&grpc::read(answer, &asked()));
        }
    }

    #[test]
    fn any_bytes_are_an_http_answer_or_none(
        status in prop_oneof![Just("200 OK".to_owned()), "[1-9][0-9]{2} x", "[ -~]{0,6}"],
        fields in prop::collection::vec((name(), text()), 0..5),
        body in prop::collection::vec(any::<u8>(), 0..20),
        noise in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut answer = format!("HTTP/1.1 {status}\r\n").into_bytes();
        for (name, value) in fields {
            answer.extend(format!("{name}: {value}\r\n").bytes());
        }
        answer.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
        answer.extend(body);
        if let Some((at, byte)) = noise {
            let at = at.index(answer.len());
            answer[at] = byte;
        }
        verdict_is_sound(&over_http(answer));
    }
}

/// The property would not see much if everything were refused.
#[test]
fn sound_answers_come_through() {
    let Verdict::Approved { edits, response_headers, .. } =
        over_http(b"HTTP/1.1 200 OK\r\nx-b: 1\r\nalso-e: 2\r\nother: 3\r\n\r\n".to_vec())
    else {
        panic!("refused")
    };
    let names: Vec<&str> = edits.set.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["also-e", "x-b"]);
    assert!(!response_headers.is_empty());
}

#[test]
fn credentials_are_not_printed() {
    let secret = ("x-secret".to_owned(), b"hunter2".to_vec());
    let response = Response { status: 401, headers: vec![secret.clone()], body: "hunter2".into() };
    let mut check = asked();
    (check.headers, check.body) = (vec![secret], Some("hunter2".into()));
    let verdict = over_http(b"HTTP/1.1 200 OK\r\nx-secret: hunter2\r\n\r\n".to_vec());
    let printed = format!("{response:?} {check:?} {verdict:?}");
    assert!(printed.contains("x-secret") && !printed.contains("hunter2") && !printed.contains("104, 117"), "{printed}");
}
