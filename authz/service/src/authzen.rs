//! The OpenID AuthZEN Authorization API 1.0 over HTTP: enforcers that speak JSON ask here.
//!
//! A decision is always status 200; any other status says that there was none. Unknown fields beside those of the standard
//! are ignored, as it demands; our own vocabulary inside `properties` and `context` is closed (see the mapping).

mod answer;
mod json;
mod mapping;
mod resource;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use palisade_policies::json::{Fields, Problem, wrong};
use palisade_wire::Caller;
use serde_json::{Map, Value, json};

use crate::caller::{Callers, Standing};
use crate::desk::{Case, Desk, Refused};
use crate::metrics::Api;
use crate::reason;
use crate::source::PolicySnapshot;
use crate::upload::{Upload, UploadError};
use mapping::{Asked, Evaluation};

const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const METADATA: &str = "/.well-known/authzen-configuration";
/// Evaluations of one request.
const MOST: usize = 1_000;
/// Bytes of defaults that the evaluations of one request may take over, all together.
const MOST_COPIED: usize = 8 * 1_024 * 1_024;

const REQUEST_ID: &str = "x-request-id";

type Answered = Response<Full<Bytes>>;

/// The API on one port.
pub(crate) struct Door {
    pub(crate) desk: Arc<Desk>,
    pub(crate) callers: Callers,
    /// Where enforcers reach this port.
    pub(crate) url: String,
    pub(crate) max_body: usize,
    /// Plaintext on loopback: browsers of this machine are kept out by their Host.
    pub(crate) loopback: bool,
}

/// An answer that is no decision.
struct Failure {
    status: StatusCode,
    problem: Problem,
}

/// When a batch ends before its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Semantic {
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

impl Door {
    /// Answers one request, whatever it is.
    pub(crate) async fn answer(&self, request: Request<Upload>) -> Answered {
        let id = request.headers().get(REQUEST_ID).cloned();
        let mut response = match self.route(request).await {
            Ok(response) => response,
            Err(Failure { status, problem }) => {
                self.desk.metrics.refused();
                let mut response = body(status, &json!({ "error": json::error(&problem, status.as_u16()) }));
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    let allowed = if problem.field == METADATA { "GET" } else { "POST" };
                    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                }
                response
            }
        };
        if let Some(id) = id {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    async fn route(&self, request: Request<Upload>) -> Result<Answered, Failure> {
        self.check_host(request.headers(), request.uri())?;
        let (path, method) = (request.uri().path().to_owned(), request.method().clone());
        match (path.as_str(), &method) {
            (METADATA, &Method::GET) => Ok(self.metadata()),
            (EVALUATION | EVALUATIONS, &Method::POST) => {
                let (began, standing) = (Instant::now(), self.standing(&request));
                let object = self.object(request).await?;
                let answer = if path == EVALUATION {
                    self.evaluation(object, &standing, began).await
                } else {
                    self.evaluations(object, &standing, began).await
                };
                answer.map(|answer| body(StatusCode::OK, &answer)).map_err(Failure::bad)
            }
            (METADATA | EVALUATION | EVALUATIONS, _) => {
                let fix = if path == METADATA { "use GET" } else { "use POST" };
                Err(Failure::of(
                    StatusCode::METHOD_NOT_ALLOWED,
                    Problem::new(path, format!("`{method}` is not served"), fix),
                ))
            }
            _ => {
                let fix = format!("use {EVALUATION}, {EVALUATIONS} or {METADATA}");
                Err(Failure::of(StatusCode::NOT_FOUND, Problem::new("", "no such resource", fix)))
            }
        }
    }

    /// A page of the web that has its name resolve to this machine must not become an enforcer.
    fn check_host(&self, headers: &HeaderMap, uri: &http::Uri) -> Result<(), Failure> {
        if !self.loopback {
            return Ok(());
        }
        let host = uri.authority().map(|authority| authority.as_str().to_owned());
        let host = host.or_else(|| Some(headers.get(HOST)?.to_str().ok()?.to_owned())).unwrap_or_default();
        let authority = host.parse::<http::uri::Authority>().ok();
        let name = authority.as_ref().map_or("", |authority| authority.host());
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        if name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback()) {
            return Ok(());
        }
        let fix = "this port is for this machine: call it by `localhost` or its loopback address";
        Err(Failure::of(StatusCode::FORBIDDEN, Problem::new("Host", format!("`{host}` is not served"), fix)))
    }

    fn standing(&self, request: &Request<Upload>) -> Standing {
        request.extensions().get::<Caller>().map_or(Standing::Unproven, |caller| self.callers.standing(caller))
    }

    async fn object(&self, request: Request<Upload>) -> Result<Map<String, Value>, Failure> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let message = format!("`{kind}` is not served");
            return Err(Failure::bad(Problem::new("Content-Type", message, "send JSON as `application/json`")));
        }
        let collected = Limited::new(request.into_body(), self.max_body).collect().await;
        let bytes = collected.map_err(|error| self.unread(&*error))?;
        json::parse(&bytes.to_bytes()).map_err(Failure::bad)
    }

    fn unread(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
        if error.is::<http_body_util::LengthLimitError>() {
            let message = format!("the body is larger than {} bytes", self.max_body);
            let problem = Problem::new("", message, "ask in several requests");
            return Failure::of(StatusCode::PAYLOAD_TOO_LARGE, problem);
        }
        let (status, fix) = match error.downcast_ref() {
            Some(UploadError::Full) => (StatusCode::SERVICE_UNAVAILABLE, "ask again later"),
            Some(UploadError::Slow) => (StatusCode::REQUEST_TIMEOUT, "send it at once"),
            Some(UploadError::Broken(_)) | None => (StatusCode::BAD_REQUEST, "send it whole"),
        };
        Failure::of(status, Problem::new("", error.to_string(), fix))
    }

    async fn evaluation(
        &self,
        mut object: Map<String, Value>,
        standing: &Standing,
        began: Instant,
    ) -> Result<Value, Problem> {
        let evaluation = Evaluation::taken(&mut object);
        let Some(snapshot) = self.desk.snapshot() else { return Ok(self.no_snapshot(began).await) };
        let asked = evaluation.read(&snapshot, self.desk.now())?;
        Ok(self.decide(asked, &snapshot, standing, began).await)
    }

    async fn evaluations(
        &self,
        mut object: Map<String, Value>,
        standing: &Standing,
        began: Instant,
    ) -> Result<Value, Problem> {
        let items = match object.remove("evaluations") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(wrong("evaluations", "an array of evaluations", &other)),
        };
        let semantic = semantic(object.remove("options"))?;
        if items.is_empty() {
            return self.evaluation(object, standing, began).await;
        }
        let defaults = Evaluation::taken(&mut object);
        check_work(items.len(), &defaults)?;
        let snapshot = self.desk.snapshot();
        let mut answers = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let began = if index == 0 { began } else { Instant::now() };
            let answer = match &snapshot {
                None => self.no_snapshot(began).await,
                Some(snapshot) => match item_of(item, index, &defaults, snapshot, self.desk.now()) {
                    Ok(asked) => self.decide(asked, snapshot, standing, began).await,
                    Err(problem) => {
                        self.refuse(reason::BAD_REQUEST, Some(snapshot), None, began).await;
                        answer::unreadable(&problem)
                    }
                },
            };
            // A long batch must not keep others from their turn.
            tokio::task::yield_now().await;
            let permitted = answer.get("decision") == Some(&Value::Bool(true));
            answers.push(answer);
            match semantic {
                Semantic::DenyOnFirstDeny if !permitted => break,
                Semantic::PermitOnFirstPermit if permitted => break,
                _ => {}
            }
        }
        Ok(json!({ "evaluations": answers }))
    }

    async fn decide(&self, asked: Asked, snapshot: &Arc<PolicySnapshot>, standing: &Standing, began: Instant) -> Value {
        let entry = match &asked.entry {
            Ok(entry) => entry,
            Err(error) => {
                let refused = self.refuse(error.reason(), Some(snapshot), Some(&asked), began).await;
                return answer::with_error(refused, 404, &error.to_string());
            }
        };
        if !standing.may_ask(snapshot, entry) {
            let refused = self.refuse(reason::CALLER_NOT_ALLOWED, Some(snapshot), Some(&asked), began).await;
            let message = format!("your identity is neither trusted here nor that of `{}`", entry.meta);
            return answer::with_error(refused, 403, &message);
        }
        let entry = Arc::clone(entry);
        let case =
            Case { api: Api::AuthZen, snapshot, entry: &entry, question: asked.question, unproven: false, began };
        answer::decision(&self.desk.decide(case).await)
    }

    async fn no_snapshot(&self, began: Instant) -> Value {
        let refused = self.refuse(reason::NO_SNAPSHOT, None, None, began).await;
        answer::with_error(refused, 503, "there is no configuration yet")
    }

    async fn refuse(
        &self,
        reason: &'static str,
        snapshot: Option<&Arc<PolicySnapshot>>,
        asked: Option<&Asked>,
        began: Instant,
    ) -> Value {
        let refused = Refused {
            api: Api::AuthZen,
            reason,
            status: 403,
            revision: snapshot.map(|snapshot| snapshot.revision()),
            entry: asked.and_then(|asked| asked.entry.as_deref().ok()),
            question: asked.map(|asked| &asked.question),
            began,
        };
        answer::decision(&self.desk.refuse(refused).await)
    }

    fn metadata(&self) -> Answered {
        let url = self.url.trim_end_matches('/');
        let mut response = body(
            StatusCode::OK,
            &json!({
                "policy_decision_point": url,
                "access_evaluation_endpoint": format!("{url}{EVALUATION}"),
                "access_evaluations_endpoint": format!("{url}{EVALUATIONS}"),
            }),
        );
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
        response
    }
}

impl Failure {
    fn of(status: StatusCode, problem: Problem) -> Self {
        Self { status, problem }
    }

    fn bad(problem: Problem) -> Self {
        Self::of(StatusCode::BAD_REQUEST, problem)
    }
}

impl Evaluation {
    fn taken(object: &mut Map<String, Value>) -> Self {
        let mut take = |name: &str| object.remove(name).filter(|value| !value.is_null());
        Self { subject: take("subject"), action: take("action"), resource: take("resource"), context: take("context") }
    }

    /// Bytes that it would be written in.
    fn weight(&self) -> usize {
        let parts = [&self.subject, &self.action, &self.resource, &self.context];
        parts.into_iter().flatten().map(|part| part.to_string().len()).sum()
    }
}

/// Bounds what one request can ask for.
fn check_work(items: usize, defaults: &Evaluation) -> Result<(), Problem> {
    if items > MOST {
        let message = format!("{items} evaluations in one request");
        return Err(Problem::new("evaluations", message, format!("send at most {MOST} at once")));
    }
    let weight = defaults.weight();
    if weight.saturating_mul(items) > MOST_COPIED {
        let message = format!("{items} evaluations, and {weight} bytes of defaults for each");
        let fix = format!("send fewer at once, or smaller defaults: at most {MOST_COPIED} bytes all together");
        return Err(Problem::new("evaluations", message, fix));
    }
    Ok(())
}

/// One evaluation of a batch: what it says itself counts, else the default, each as a whole.
fn item_of(
    item: Value,
    index: usize,
    defaults: &Evaluation,
    snapshot: &PolicySnapshot,
    now: std::time::SystemTime,
) -> Result<Asked, Problem> {
    let path = format!("evaluations[{index}]");
    let Value::Object(mut item) = item else { return Err(wrong(&path, "an object", &item)) };
    let own = Evaluation::taken(&mut item);
    let whole = Evaluation {
        subject: own.subject.or_else(|| defaults.subject.clone()),
        action: own.action.or_else(|| defaults.action.clone()),
        resource: own.resource.or_else(|| defaults.resource.clone()),
        context: own.context.or_else(|| defaults.context.clone()),
    };
    whole.read(snapshot, now).map_err(|problem| problem.within(&path))
}

fn semantic(options: Option<Value>) -> Result<Semantic, Problem> {
    let given = options.filter(|options| !options.is_null());
    let Some(mut options) = given.map(|options| Fields::of("options", options)).transpose()? else {
        return Ok(Semantic::ExecuteAll);
    };
    match options.string("evaluations_semantic")?.as_deref() {
        None | Some("execute_all") => Ok(Semantic::ExecuteAll),
        Some("deny_on_first_deny") => Ok(Semantic::DenyOnFirstDeny),
        Some("permit_on_first_permit") => Ok(Semantic::PermitOnFirstPermit),
        Some(other) => {
            let fix = "write `execute_all`, `deny_on_first_deny` or `permit_on_first_permit`";
            Err(Problem::new("options.evaluations_semantic", format!("`{other}` is unknown"), fix))
        }
    }
}

fn body(status: StatusCode, value: &Value) -> Answered {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
