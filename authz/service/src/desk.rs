//! Where every question of both protocols is decided and recorded: one snapshot, one judgement, one record.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use palisade_authz::gate::{Ask, BodySource, Judgement, Reading, Standing};
use palisade_authz::provider::{CheckRequest, Party, Response, ResponseEdits};
use palisade_authz::{
    Attribute, Decision, DecisionRecord, DecisionSink, Denial, DestinationFacts, Edits, Evaluation, HttpFacts, Outcome,
    Request, RequestFacts, SourceFacts,
};
use palisade_policies::WorkloadEntry;

use crate::forwarded::Forwarded;
use crate::metrics::{Api, Metrics};
use crate::question::{Http, Question};
use crate::reason;
use crate::sets::{Prepared, Sets};
use crate::source::{PolicySnapshot, PolicySource};

/// What time it is; passed in so that tests own it.
pub type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Attributes in the order in which what is missing is named.
const ATTRIBUTES: [Attribute; 13] = [
    Attribute::SourcePrincipal,
    Attribute::SourceIp,
    Attribute::RemoteIp,
    Attribute::DestinationIp,
    Attribute::DestinationPort,
    Attribute::Sni,
    Attribute::Method,
    Attribute::Path,
    Attribute::Host,
    Attribute::Scheme,
    Attribute::Headers,
    Attribute::Claims,
    Attribute::Metadata,
];

/// Decides and records.
pub(crate) struct Desk {
    pub(crate) source: Arc<dyn PolicySource>,
    pub(crate) sink: Arc<dyn DecisionSink>,
    pub(crate) sets: Sets,
    pub(crate) metrics: Metrics,
    pub(crate) now: Now,
}

/// The answer to one question.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    /// Whether it was about an HTTP request.
    pub(crate) http: bool,
    pub(crate) reason: &'static str,
    /// What the policies said; `None` where none was asked.
    pub(crate) evaluation: Option<Evaluation>,
    pub(crate) revision: Arc<str>,
    /// What changes in the request; of an allowed one only.
    pub(crate) edits: Edits,
    /// What changes in the response; of an allowed one only.
    pub(crate) response_headers: ResponseEdits,
    /// What the client gets; of a denied request only.
    pub(crate) response: Option<Response>,
    /// Attributes that would have decided.
    pub(crate) missing: Vec<Attribute>,
}

/// What is asked, and how the record shows it.
pub(crate) struct Case<'a> {
    pub(crate) api: Api,
    pub(crate) snapshot: &'a Arc<PolicySnapshot>,
    pub(crate) entry: &'a WorkloadEntry,
    pub(crate) question: Question,
    /// The caller states who its client is, and its word does not count.
    pub(crate) unproven: bool,
    pub(crate) began: Instant,
}

/// A refusal before any policy.
pub(crate) struct Refused<'a> {
    pub(crate) api: Api,
    pub(crate) reason: &'static str,
    pub(crate) status: u16,
    pub(crate) revision: Option<&'a Arc<str>>,
    pub(crate) entry: Option<&'a WorkloadEntry>,
    pub(crate) question: Option<&'a Question>,
    pub(crate) began: Instant,
}

impl Desk {
    pub(crate) fn snapshot(&self) -> Option<Arc<PolicySnapshot>> {
        self.source.current()
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.now)()
    }

    /// Decides by the policies of the workload.
    pub(crate) async fn decide(&self, case: Case<'_>) -> Answer {
        if !self.sink.has_room() {
            self.sink.room().await;
        }
        let Some(prepared) = self.sets.of(case.snapshot, case.entry, case.question.semantics()).await else {
            return self
                .refuse(Refused {
                    api: case.api,
                    reason: reason::NO_SNAPSHOT,
                    status: 403,
                    revision: Some(case.snapshot.revision()),
                    entry: Some(case.entry),
                    question: Some(&case.question),
                    began: case.began,
                })
                .await;
        };
        let mut body = Given(case.question.http.as_ref());
        let check = || check_request(&case.question);
        let ask = Ask { known: case.question.known, ..Ask::new(case.question.request(), &check) };
        let judgement = prepared.gate.judge(&ask, &mut body, self.now()).await;
        let answer = self.settle(&case, &prepared, judgement);
        self.metrics.decided(case.api, answer.allowed, answer.reason, case.began.elapsed());
        answer
    }

    /// Records and answers what no policy was asked about.
    pub(crate) async fn refuse(&self, refused: Refused<'_>) -> Answer {
        if !self.sink.has_room() {
            self.sink.room().await;
        }
        let revision = refused.revision.cloned().unwrap_or_default();
        let mut facts = self.facts(&revision, refused.entry, refused.question, &[], refused.began);
        facts.status = shown_status(refused.api, refused.question, refused.status);
        self.sink.record(DecisionRecord::connection_refused(refused.reason, facts));
        self.metrics.decided(refused.api, false, refused.reason, refused.began.elapsed());
        let response = if refused.status == 403 { Response::denied() } else { Response::text(refused.status, "") };
        Answer {
            allowed: false,
            http: refused.question.is_none_or(|question| question.http.is_some()),
            reason: refused.reason,
            evaluation: None,
            revision,
            edits: Edits::default(),
            response_headers: ResponseEdits::default(),
            response: Some(response),
            missing: Vec::new(),
        }
    }

    /// Spends the permit or the denial: the one record.
    fn settle(&self, case: &Case<'_>, prepared: &Prepared, judgement: Judgement) -> Answer {
        match judgement {
            Judgement::Forward { permit, edits, response_headers, standing } => {
                let headers = case.question.http.as_ref().map_or(&[][..], |http| &http.headers);
                // Envoy is told what to forward; other enforcers are told yes or no.
                let Forwarded { edits, several } = match case.api {
                    Api::ExtAuthz => Forwarded::of(edits, headers),
                    Api::AuthZen => Forwarded { edits, several: Vec::new() },
                };
                if let Some(denial) = differing(prepared, &case.question, &standing, &several) {
                    return self.deny(case, prepared, denial, Response::text(400, ""), Some(reason::AMBIGUOUS_REQUEST));
                }
                let evaluation = permit.evaluation().clone();
                let facts = self.case_facts(case, prepared, 0);
                let reason = evaluation.reason();
                permit.spend(&*self.sink, facts);
                Answer {
                    allowed: true,
                    http: case.question.http.is_some(),
                    reason,
                    evaluation: Some(evaluation),
                    revision: Arc::clone(case.snapshot.revision()),
                    edits,
                    response_headers,
                    response: None,
                    missing: Vec::new(),
                }
            }
            Judgement::Refuse { denial, response, .. } => self.deny(case, prepared, denial, response, None),
        }
    }

    fn deny(
        &self,
        case: &Case<'_>,
        prepared: &Prepared,
        denial: Denial,
        response: Response,
        because: Option<&'static str>,
    ) -> Answer {
        let evaluation = denial.evaluation().clone();
        let undecided = evaluation.outcome == Outcome::Undecided;
        let missing = if undecided { missing(prepared, &case.question) } else { Vec::new() };
        let because = because.or_else(|| match undecided {
            true if case.unproven && missing.iter().any(is_identity) => Some(reason::CALLER_UNPROVEN),
            true => Some(reason::UNDECIDED),
            false => None,
        });
        let facts = self.case_facts(case, prepared, response.status);
        let reason = match because {
            Some(reason) => {
                denial.record_as(reason, &*self.sink, facts);
                reason
            }
            None => {
                let reason = denial.reason();
                denial.record(&*self.sink, facts);
                reason
            }
        };
        Answer {
            allowed: false,
            http: case.question.http.is_some(),
            reason,
            evaluation: Some(evaluation),
            revision: Arc::clone(case.snapshot.revision()),
            edits: Edits::default(),
            response_headers: ResponseEdits::default(),
            response: Some(response),
            missing,
        }
    }

    fn case_facts(&self, case: &Case<'_>, prepared: &Prepared, status: u16) -> RequestFacts {
        let (revision, question) = (case.snapshot.revision(), Some(&case.question));
        let mut facts = self.facts(revision, Some(case.entry), question, &prepared.headers, case.began);
        facts.status = shown_status(case.api, question, status);
        facts
    }

    fn facts(
        &self,
        revision: &Arc<str>,
        entry: Option<&WorkloadEntry>,
        question: Option<&Question>,
        headers: &[String],
        began: Instant,
    ) -> RequestFacts {
        // Never the caller's word: whoever could choose the time could choose where nobody looks.
        let since = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let principal = question.and_then(|question| question.source.principal.clone());
        RequestFacts {
            time_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            revision: Arc::clone(revision),
            transport: if principal.is_some() { "mtls" } else { "plaintext" },
            source: Arc::new(SourceFacts {
                principal,
                ip: question.and_then(|question| question.source.ip),
                port: question.and_then(|question| question.source.port),
                hint: None,
            }),
            destination: Arc::new(DestinationFacts {
                principal: None,
                namespace: entry.map(|entry| entry.meta.namespace.clone()).unwrap_or_default(),
                workload: entry.map(|entry| entry.meta.name.clone()).unwrap_or_default(),
                ip: question.and_then(|question| question.destination.ip),
                port: question.and_then(|question| question.destination.port),
                service: question.and_then(|question| question.destination.service.clone()),
            }),
            http: question.and_then(|question| question.http.as_ref()).map(|http| http_facts(http, headers)),
            protocol: question.map_or("http", Question::protocol),
            sni: question.and_then(|question| question.sni.as_deref()).map(Arc::from),
            status: 0,
            duration: began.elapsed(),
        }
    }
}

/// What the client saw: known of a refused HTTP request that an enforcer answers as it is told, of nothing else.
fn shown_status(api: Api, question: Option<&Question>, status: u16) -> u16 {
    let http = question.is_none_or(|question| question.http.is_some());
    if api == Api::ExtAuthz && http { status } else { 0 }
}

fn http_facts(http: &Http, headers: &[String]) -> HttpFacts {
    HttpFacts {
        method: http.method.clone().unwrap_or_default(),
        host: http.host.clone(),
        path: http.target.as_deref().map(|target| palisade_authz::normalize::without_query(target).to_owned()),
        scheme: http.scheme.clone(),
        headers: http.headers.iter().filter(|(name, _)| headers.contains(name)).cloned().collect(),
    }
}

/// What only a caller that proved itself can say of its client.
fn is_identity(attribute: &Attribute) -> bool {
    matches!(attribute, Attribute::SourcePrincipal | Attribute::Claims)
}

/// The refusal of another reading of an allowed request, if there is one. `several` are headers that are forwarded
/// otherwise than they were decided on.
fn differing(prepared: &Prepared, question: &Question, standing: &Standing, several: &[String]) -> Option<Denial> {
    if question.claims.is_none() && question.tokens_in_doubt(&prepared.token_headers) {
        return Some(Denial::by_authentication());
    }
    let read = prepared.gate.policies().headers_read();
    let mut denial = |reading: &Request<'_>, known| match prepared.gate.judge_again_known(reading, standing, known) {
        Decision::Deny(denial) => Some(denial),
        // Spent by nobody: the permit of the first reading is the one that counts.
        Decision::Allow(_) => None,
    };
    if several.iter().any(|name| read.contains(name)) {
        let refused = denial(&question.request(), question.known.without(Attribute::Headers));
        if refused.is_some() {
            return refused;
        }
    }
    question.other_reading(read, &mut denial)
}

/// Which of the unknown attributes would decide; all of them where that is not for the policies to say.
fn missing(prepared: &Prepared, question: &Question) -> Vec<Attribute> {
    let found = prepared.gate.policies().undecided_by(&question.request(), question.known);
    let wanted = |one: &Attribute| if found.is_empty() { !question.known.has(*one) } else { found.contains(one) };
    ATTRIBUTES.into_iter().filter(wanted).collect()
}

fn check_request(question: &Question) -> CheckRequest {
    let address =
        |ip: Option<std::net::IpAddr>, port: Option<u16>| Some(SocketAddr::new(ip?, port.unwrap_or_default()));
    let source = &question.source;
    let http = question.http.clone().unwrap_or_default();
    CheckRequest {
        method: http.method,
        target: http.target,
        host: http.host,
        scheme: http.scheme,
        protocol: http.protocol,
        headers: http.headers,
        source: Party { address: address(source.ip, source.port), principal: source.principal.clone() },
        destination: Party { address: address(question.destination.ip, question.destination.port), principal: None },
        sni: question.sni.clone(),
        body: None,
        body_partial: false,
        body_size: http.body_size,
        time: question.time,
        tcp: question.http.is_none(),
    }
}

/// The body as far as the enforcer sent it.
struct Given<'a>(Option<&'a Http>);

impl BodySource for Given<'_> {
    fn read(&mut self, max: u32) -> Reading<'_> {
        let given = self.0.and_then(|http| http.body.clone()).unwrap_or_default();
        let size = self.0.and_then(|http| http.body_size);
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let whole = given.len() <= max && size.is_none_or(|size| size <= given.len() as u64);
        let bytes = if given.len() > max { given.slice(..max) } else { given };
        Box::pin(std::future::ready(Ok((bytes, whole))))
    }
}
