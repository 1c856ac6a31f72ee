//! The HTTP form: the head of the request is put to the provider as a request of its own, over HTTP/1.1.
//!
//! A connection is driven by the check that uses it and rests undriven between two: it needs no task, goes when the
//! check that holds it is given up, and is looked at before it is used again.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use palisade_policies::ExtAuthzHttp;

use super::answer::{Answer, Changes, Failure, Wanted, refusal};
use super::check::CheckRequest;
use super::counters::count;
use super::dial::Io;
use super::field::{Malformed, Names, checked, is_hop_by_hop};
use super::question;
use super::reach::{Age, Reach};
use super::response::{How, Mutation, ResponseEdits};
use super::watched::Watched;

/// Bytes of an answer's head; more is not even read to its end.
const MAX_HEAD: usize = 64 * 1024;
/// Connections that rest between checks.
const MAX_IDLE: usize = 64;
/// On an allowing answer: names of headers, comma-separated, that are taken from the request.
const HEADERS_TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// A client of one provider.
pub(super) struct HttpClient {
    reach: Reach,
    path_prefix: String,
    include: Names,
    additional: Vec<(HeaderName, HeaderValue)>,
    to_upstream: Names,
    to_caller_on_allow: Names,
    to_caller_on_deny: Names,
    idle: Mutex<Vec<Connection>>,
}

type Driver = http1::Connection<TokioIo<Watched<Box<dyn Io>>>, Full<Bytes>>;

struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<Driver>>,
    heard: Arc<std::sync::atomic::AtomicBool>,
    age: Age,
}

/// A whole answer.
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl HttpClient {
    pub(super) fn new(config: &ExtAuthzHttp, reach: Reach) -> Self {
        let field = |(name, value): (&String, &String)| {
            let name = if name.eq_ignore_ascii_case(":authority") { "host" } else { name };
            // Envoy reads `%` as the beginning of a command; `%%` is how the sign itself is written.
            Some((name.parse().ok()?, HeaderValue::from_str(&value.replace("%%", "%")).ok()?))
        };
        Self {
            reach,
            path_prefix: config.path_prefix.clone(),
            include: Names::new(&config.include_headers),
            additional: config.include_additional.iter().filter_map(field).collect(),
            to_upstream: Names::new(&config.headers_to_upstream_on_allow),
            to_caller_on_allow: Names::new(&config.headers_to_downstream_on_allow),
            to_caller_on_deny: Names::new(&config.headers_to_downstream_on_deny),
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(super) async fn ask(&self, request: &CheckRequest) -> Result<Answer, Failure> {
        let question = self.question(request).ok_or(Failure::Question)?;
        let reply = match self.rested().await {
            Some(used) => match self.exchange(used, question.clone()).await {
                // It may have died while it rested: what nobody began to answer is asked once more.
                Err(Lost { failure: Failure::Broken(_), heard: false }) => {
                    count(&self.reach.counters.retries);
                    self.exchange(self.connect().await?, question).await
                }
                other => other,
            },
            None => self.exchange(self.connect().await?, question).await,
        };
        self.read(reply.map_err(|lost| lost.failure)?, request)
    }

    /// The question. None for a request that has no path.
    fn question(&self, request: &CheckRequest) -> Option<Request<Full<Bytes>>> {
        let method = request.method.as_deref().filter(|method| *method != "CONNECT")?;
        let target = escaped(&[&self.path_prefix, request.target.as_deref()?].concat());
        let body = request.body.clone().unwrap_or_default();
        let mut question = Request::new(Full::new(body.clone()));
        *question.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
        *question.uri_mut() = target.parse::<Uri>().ok()?;
        let headers = question.headers_mut();
        let wanted = |name: &str| {
            matches!(name, ":authority" | "authorization")
                || (!name.starts_with(':') && !is_hop_by_hop(name) && self.include.has(name))
        };
        for (name, value) in question::headers(request, wanted) {
            let name = if name == ":authority" { HOST } else { name.parse().ok()? };
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
        headers.insert(CONTENT_LENGTH, body.len().into());
        for (name, value) in &self.additional {
            headers.insert(name, value.clone());
        }
        Some(question)
    }

    /// A connection that rested and is still alive.
    async fn rested(&self) -> Option<Connection> {
        loop {
            let mut connection = self.lock().pop()?;
            if self.reach.is_stale(connection.age) {
                continue;
            }
            let alive = poll_fn(|cx| Poll::Ready(connection.driver.as_mut().poll(cx).is_pending())).await;
            if alive && connection.sender.is_ready() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let connecting = async {
            let (io, heard) = Watched::new(self.reach.dial().await?);
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MAX_HEAD);
            let (sender, driver) = builder.handshake(TokioIo::new(io)).await.map_err(broken)?;
            Ok(Connection { sender, driver: Box::pin(driver), heard, age: self.reach.newborn() })
        };
        self.reach.in_time(connecting).await
    }

    /// One question and its whole answer; the connection rests afterwards if it can be used again.
    async fn exchange(&self, connection: Connection, question: Request<Full<Bytes>>) -> Result<Reply, Lost> {
        let Connection { mut sender, mut driver, heard, age } = connection;
        heard.store(false, std::sync::atomic::Ordering::Relaxed);
        let max = self.reach.max_answer;
        let replied = {
            let mut replying = pin!(async {
                let response = sender.send_request(question).await.map_err(broken)?;
                let (parts, body) = response.into_parts();
                let body = Limited::new(body, max).collect().await.map_err(cut_off)?.to_bytes();
                Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
            });
            let mut ended = false;
            poll_fn(|cx| {
                // What the connection read before it ended is still to be had.
                ended = ended || driver.as_mut().poll(cx).is_ready();
                replying.as_mut().poll(cx)
            })
            .await
        };
        let reply =
            replied.map_err(|failure| Lost { failure, heard: heard.load(std::sync::atomic::Ordering::Relaxed) })?;
        let alive = poll_fn(|cx| Poll::Ready(driver.as_mut().poll(cx).is_pending())).await;
        if alive && sender.is_ready() {
            let mut idle = self.lock();
            // The last one in is the first one out: those below are looked at here.
            idle.retain(|one| !self.reach.is_stale(one.age));
            if idle.len() < MAX_IDLE {
                idle.push(Connection { sender, driver, heard, age: self.reach.rests(age) });
            }
        }
        Ok(reply)
    }

    /// 200 is a yes, 5xx no answer, everything else a no.
    fn read(&self, mut reply: Reply, request: &CheckRequest) -> Result<Answer, Failure> {
        let head: usize = reply.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if head > MAX_HEAD {
            return Err(Failure::Malformed);
        }
        let remove = reply.headers.get_all(HEADERS_TO_REMOVE).iter().map(HeaderValue::as_bytes);
        let remove = remove.flat_map(|list| list.split(|byte| *byte == b','));
        let remove = remove.map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned()).collect();
        reply.headers.remove(HEADERS_TO_REMOVE);
        match reply.status {
            200 => Ok(Answer::Allowed(Box::new(self.allow(&reply, remove, request)?))),
            500..600 => Err(Failure::Status(reply.status.into())),
            _ => Ok(Answer::Denied(self.deny(&reply)?)),
        }
    }

    fn allow(&self, reply: &Reply, remove: Vec<String>, request: &CheckRequest) -> Result<Changes, Malformed> {
        let mut wanted = Wanted { remove, ..Wanted::default() };
        let mut response = Vec::new();
        for (name, value) in fields(reply)? {
            if self.to_upstream.has(&name) {
                wanted.set.push((name.clone(), value.clone()));
            }
            if self.to_caller_on_allow.has(&name) {
                response.push(Mutation { name, value, how: How::Add });
            }
        }
        Ok(Changes { edits: wanted.edits(request)?, response: ResponseEdits::new(response)?, metadata: None })
    }

    fn deny(&self, reply: &Reply) -> Result<super::response::Response, Malformed> {
        let names = &self.to_caller_on_deny;
        let mut headers = fields(reply)?;
        headers.retain(|(name, _)| {
            names.is_empty() || names.has(name) || matches!(name.as_str(), "www-authenticate" | "location")
        });
        refusal(reply.status.into(), headers, reply.body.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A push or a pop: whole at any time.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exchange without an answer, and whether any byte of one came.
struct Lost {
    failure: Failure,
    heard: bool,
}

fn broken(error: hyper::Error) -> Failure {
    Failure::Broken(error.into())
}

/// A body that is too long, or that breaks off.
fn cut_off(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    if error.is::<LengthLimitError>() { Failure::Malformed } else { Failure::Broken(error) }
}

/// The answer's header fields that may be taken over.
fn fields(reply: &Reply) -> Result<Vec<(String, Vec<u8>)>, Malformed> {
    let fields = reply.headers.iter().filter(|(name, _)| !is_hop_by_hop(name.as_str()));
    fields.map(|(name, value)| checked(name.as_str(), value.as_bytes())).collect()
}

/// A target in the characters that HTTP has for it; others, which policy and workload see as the caller sent them, are
/// escaped.
fn escaped(target: &str) -> String {
    let mut escaped = String::with_capacity(target.len());
    for byte in target.bytes() {
        if byte.is_ascii_alphanumeric() || b"!$%&'()*+,-./:;=?@[]_|~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
