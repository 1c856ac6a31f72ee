//! The gRPC form: one HTTP/2 connection to a provider, shared by all checks.

use std::sync::Arc;
use std::time::Duration;

use palisade_policies::ExtAuthzGrpc;
use palisade_wire::envoy::envoy::config::core::v3::HeaderValueOption;
use palisade_wire::envoy::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use palisade_wire::envoy::envoy::service::auth::v3::check_response::HttpResponse;
use palisade_wire::envoy::envoy::service::auth::v3::{DeniedHttpResponse, OkHttpResponse};
use palisade_wire::envoy::google::protobuf::value::Kind;
use palisade_wire::envoy::google::protobuf::{Struct, Value as PbValue};
use palisade_wire::ext_authz::{self, CheckError, CheckResponse, Connection};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::answer::{Answer, Changes, Failure, Wanted, refusal};
use super::check::CheckRequest;
use super::counters::count;
use super::field::{Malformed, checked};
use super::question;
use super::reach::{Age, Reach};
use super::response::{How, Mutation, ResponseEdits};

/// A client of one provider.
pub(super) struct GrpcClient {
    reach: Reach,
    timeout: Duration,
    pack_as_bytes: bool,
    open: Mutex<Option<Open>>,
}

/// The connection in use, and which one it is.
#[derive(Clone)]
struct Open {
    number: u64,
    connection: Connection,
    age: Age,
}

impl GrpcClient {
    pub(super) fn new(config: &ExtAuthzGrpc, reach: Reach) -> Self {
        let pack_as_bytes = config.body.is_some_and(|body| body.pack_as_bytes);
        Self { reach, timeout: config.timeout, pack_as_bytes, open: Mutex::new(None) }
    }

    pub(super) async fn ask(&self, request: &CheckRequest) -> Result<Answer, Failure> {
        let question = question::protobuf(request, self.pack_as_bytes);
        let (used, open) = self.connection(None).await?;
        let answer = match self.check(&open, question.clone()).await {
            // A connection that had been in use may have died unseen: what nobody began to answer is asked once more.
            Err(CheckError::Unanswered(_)) if used => {
                count(&self.reach.counters.retries);
                let (_, fresh) = self.connection(Some(open.number)).await?;
                self.check(&fresh, question).await
            }
            other => other,
        };
        read(answer.map_err(failure)?, request)
    }

    async fn check(&self, open: &Open, question: ext_authz::CheckRequest) -> Result<CheckResponse, CheckError> {
        open.connection.check(question, self.timeout, self.reach.max_answer).await
    }

    /// The connection, never the one numbered `dead`, and whether it was there before. Whoever finds none opens it, and
    /// others wait for that.
    async fn connection(&self, dead: Option<u64>) -> Result<(bool, Open), Failure> {
        let mut held = self.open.lock().await;
        if let Some(open) = &*held
            && dead != Some(open.number)
            && open.connection.is_open()
            && !self.reach.is_over(open.age)
        {
            return Ok((true, open.clone()));
        }
        let number = held.take().map_or(0, |old| old.number.wrapping_add(1));
        let connecting = async {
            let origin = self.reach.origin.clone().ok_or(Failure::Question)?;
            let io = self.reach.dial().await?;
            Connection::open(io, origin).await.map_err(|error| Failure::Broken(error.into()))
        };
        let connection = self.reach.in_time(connecting).await?;
        let open = Open { number, connection, age: self.reach.newborn() };
        *held = Some(open.clone());
        Ok((false, open))
    }
}

fn failure(error: CheckError) -> Failure {
    match error {
        CheckError::Status(code) => Failure::Status(code),
        other => Failure::Broken(other.into()),
    }
}

/// What Envoy does with the message: the status code alone decides, and an empty message is a yes.
pub(super) fn read(answer: CheckResponse, request: &CheckRequest) -> Result<Answer, Failure> {
    let code = answer.status.map_or(0, |status| status.code);
    match (code, answer.http_response) {
        (0, Some(HttpResponse::OkResponse(ok))) => Ok(allow(ok, answer.dynamic_metadata, request)?),
        (0, _) => Ok(allow(OkHttpResponse::default(), answer.dynamic_metadata, request)?),
        (_, Some(HttpResponse::ErrorResponse(told))) => {
            let status = told.status.map_or(0, |status| status.code);
            let headers = fields(told.headers)?.into_iter().map(|(_, name, value)| (name, value)).collect();
            let response = refusal(if status == 0 { 403 } else { status }, headers, told.body.into())?;
            Err(Failure::Told((status != 0).then_some(response.status), response))
        }
        (_, Some(HttpResponse::DeniedResponse(denied))) => Ok(deny(denied)?),
        (_, _) => Ok(deny(DeniedHttpResponse::default())?),
    }
}

#[expect(deprecated, reason = "metadata inside the yes goes before the metadata beside it, in Envoy too")]
fn allow(ok: OkHttpResponse, metadata: Option<Struct>, request: &CheckRequest) -> Result<Answer, Malformed> {
    let metadata = ok.dynamic_metadata.or(metadata).filter(|metadata| !metadata.fields.is_empty());
    let mut changes = Changes { metadata: metadata.map(|fields| Arc::new(object(fields))), ..Changes::default() };
    if request.tcp {
        return Ok(Answer::Allowed(Box::new(changes)));
    }
    changes.response = response_edits(ok.response_headers_to_add)?;
    let mut wanted = Wanted {
        remove: ok.headers_to_remove,
        set_query: ok.query_parameters_to_set.into_iter().map(|parameter| (parameter.key, parameter.value)).collect(),
        remove_query: ok.query_parameters_to_remove,
        ..Wanted::default()
    };
    for (append, name, value) in fields(ok.headers)? {
        if append == Some(true) { wanted.join.push((name, value)) } else { wanted.set.push((name, value)) }
    }
    changes.edits = wanted.edits(request)?;
    Ok(Answer::Allowed(Box::new(changes)))
}

/// A field of a refusal that is to be appended is left out, since there is nothing to append it to.
fn deny(denied: DeniedHttpResponse) -> Result<Answer, Malformed> {
    let status = denied.status.map_or(0, |status| status.code);
    let fields = fields(denied.headers)?.into_iter().filter(|(append, ..)| *append != Some(true));
    let headers = fields.map(|(_, name, value)| (name, value)).collect();
    Ok(Answer::Denied(refusal(if status == 0 { 403 } else { status }, headers, denied.body.into())?))
}

/// `append`, name and value.
type Field = (Option<bool>, String, Vec<u8>);

/// On a request Envoy reads the deprecated `append` alone, and takes its absence for no.
#[expect(deprecated, reason = "the newer `append_action` says nothing here")]
fn fields(options: Vec<HeaderValueOption>) -> Result<Vec<Field>, Malformed> {
    let field = |option: HeaderValueOption| {
        let header = option.header.unwrap_or_default();
        let (name, value) = checked(&header.key, header.value.as_bytes())?;
        Ok((option.append.map(|append| append.value), name, value))
    };
    options.into_iter().map(field).collect()
}

/// On a response both are read, `append` first; and what is added comes before what is set, whatever their order.
#[expect(deprecated, reason = "providers written for older Envoys use it")]
fn response_edits(options: Vec<HeaderValueOption>) -> Result<ResponseEdits, Malformed> {
    let mut changes = Vec::with_capacity(options.len());
    for option in options {
        let how = match (&option.append, HeaderAppendAction::try_from(option.append_action)) {
            (Some(append), _) if append.value => How::Add,
            (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => How::Add,
            (None, Ok(HeaderAppendAction::AddIfAbsent)) => How::AddIfAbsent,
            (None, Ok(HeaderAppendAction::OverwriteIfExists)) => How::OverwriteIfExists,
            (Some(_), _) | (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) | Err(_)) => How::Set,
        };
        let header = option.header.unwrap_or_default();
        let (name, value) = checked(&header.key, header.value.as_bytes())?;
        changes.push(Mutation { name, value, how });
    }
    ResponseEdits::new(changes)
}

fn object(fields: Struct) -> Value {
    Value::Object(fields.fields.into_iter().map(|(name, field)| (name, value(field))).collect::<Map<_, _>>())
}

/// As deep as the message's own nesting, which decoding bounds.
fn value(field: PbValue) -> Value {
    match field.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Value::from(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(truth)) => Value::Bool(truth),
        Some(Kind::StructValue(fields)) => object(fields),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(value).collect()),
    }
}
