//! One provider: how long, how many at once, and what becomes of a request when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use palisade_policies::{CheckBody, ExtensionProvider, ProviderKind};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::permit::Approval;
use crate::record::reason;

use super::Limits;
use super::answer::{Answer, Changes, Failure};
use super::breaker::Breaker;
use super::check::CheckRequest;
use super::counters::{Counters, Counts, count};
use super::dial::{Dial, Dialing};
use super::grpc::GrpcClient;
use super::http::HttpClient;
use super::reach::Reach;
use super::response::{Response, Verdict};

/// A provider with its connections.
pub(super) struct Provider {
    pub(super) config: ExtensionProvider,
    name: Arc<str>,
    settings: Settings,
    client: Client,
    breaker: Arc<Breaker>,
    slots: Semaphore,
    waiting: AtomicUsize,
    max_pending: usize,
    counters: Arc<Counters>,
}

struct Settings {
    timeout: Duration,
    fail_open: bool,
    status_on_error: u16,
    body: Option<CheckBody>,
}

enum Client {
    Http(HttpClient),
    Grpc(GrpcClient),
    /// Not for requests.
    None,
}

impl Provider {
    pub(super) fn new(config: &ExtensionProvider, dial: Arc<dyn Dial>, limits: &Limits) -> Self {
        let (counters, breaker) = (Arc::new(Counters::default()), Arc::new(Breaker::new(limits)));
        let dial: Arc<dyn Dial> = Arc::new(Watched { dial, breaker: Arc::clone(&breaker) });
        let reach = |service: &str, port| Reach::new(service, port, dial, limits, Arc::clone(&counters));
        let settings = |timeout, fail_open, status: Option<u16>, body| {
            // What Istio accepts begins with informational statuses, which end no exchange.
            let status_on_error = status.filter(|status| (200..600).contains(status)).unwrap_or(403);
            Settings { timeout, fail_open, status_on_error, body }
        };
        let (settings, client) = match &config.kind {
            ProviderKind::ExtAuthzHttp(one) => (
                settings(one.timeout, one.fail_open, one.status_on_error, one.body),
                Client::Http(HttpClient::new(one, reach(&one.service, one.port))),
            ),
            ProviderKind::ExtAuthzGrpc(one) => (
                settings(one.timeout, one.fail_open, one.status_on_error, one.body),
                Client::Grpc(GrpcClient::new(one, reach(&one.service, one.port))),
            ),
            ProviderKind::Other(_) => (settings(Duration::ZERO, false, None, None), Client::None),
        };
        Self {
            config: config.clone(),
            name: config.name.as_str().into(),
            settings,
            client,
            breaker,
            slots: Semaphore::new(limits.max_concurrent.clamp(1, Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            max_pending: limits.max_pending,
            counters,
        }
    }

    pub(super) fn body(&self) -> Option<CheckBody> {
        self.settings.body
    }

    pub(super) fn counts(&self) -> Counts {
        self.counters.now()
    }

    pub(super) async fn check(&self, request: &CheckRequest) -> Verdict {
        match self.ask(request).await {
            Ok(Answer::Allowed(changes)) => {
                count(&self.counters.ok);
                self.approved(*changes)
            }
            Ok(Answer::Denied(response)) => {
                count(&self.counters.denied);
                Verdict::Refused { response, reason: reason::CUSTOM_DENIED }
            }
            Err(failure) => self.failed(failure),
        }
    }

    fn approved(&self, changes: Changes) -> Verdict {
        let Changes { edits, response, metadata } = changes;
        let approval = Approval::new(Arc::clone(&self.name));
        Verdict::Approved { approval, edits, response_headers: response, metadata }
    }

    fn failed(&self, failure: Failure) -> Verdict {
        count(&self.counters.error);
        match &failure {
            Failure::TimedOut => count(&self.counters.timeout),
            Failure::Malformed => count(&self.counters.invalid),
            Failure::Rejected => count(&self.counters.rejected),
            _ => {}
        }
        tracing::debug!(provider = &*self.name, error = &failure as &dyn std::error::Error, "check failed");
        if self.settings.fail_open {
            count(&self.counters.failure_mode_allowed);
            return self.approved(Changes::default());
        }
        let status = self.settings.status_on_error;
        let response = match failure {
            Failure::Told(told, response) => Response { status: told.unwrap_or(status), ..response },
            _ => Response::text(status, ""),
        };
        Verdict::Refused { response, reason: reason::CUSTOM_ERROR }
    }

    async fn ask(&self, request: &CheckRequest) -> Result<Answer, Failure> {
        let ticket = self.breaker.admit().ok_or(Failure::Rejected)?;
        let connecting = Arc::new(AtomicBool::new(false));
        let asking = CONNECTING.scope(Arc::clone(&connecting), async {
            let _slot = self.slot().await?;
            match &self.client {
                Client::Http(client) => client.ask(request).await,
                Client::Grpc(client) => client.ask(request).await,
                Client::None => Err(Failure::Question),
            }
        });
        let answer = timeout(self.settings.timeout, asking).await.unwrap_or(Err(Failure::TimedOut));
        match &answer {
            Ok(_) | Err(Failure::Status(_) | Failure::Told(..) | Failure::Malformed) => ticket.reached(),
            Err(Failure::Unreachable(_)) => ticket.failed(),
            Err(Failure::TimedOut) if connecting.load(Ordering::Relaxed) => ticket.failed(),
            // Nothing about the provider: the question's own doing, or time spent in the queue.
            Err(Failure::TimedOut | Failure::Broken(_) | Failure::Rejected | Failure::Question) => drop(ticket),
        }
        answer
    }

    /// A place among the checks under way.
    async fn slot(&self) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let waiting = Waiting::begin(&self.waiting);
        if waiting.others >= self.max_pending {
            return Err(Failure::Rejected);
        }
        self.slots.acquire().await.map_err(|_| Failure::Rejected)
    }
}

tokio::task_local! {
    /// Whether the check under way in this task waits for a connection.
    static CONNECTING: Arc<AtomicBool>;
}

/// The way to a provider, with an eye on whether it gets anywhere.
struct Watched {
    dial: Arc<dyn Dial>,
    breaker: Arc<Breaker>,
}

impl Dial for Watched {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        let mark = |now| {
            // Outside of a check nobody asks.
            let _ = CONNECTING.try_with(|connecting| connecting.store(now, Ordering::Relaxed));
        };
        Box::pin(async move {
            mark(true);
            let dialled = self.dial.dial(host, port).await;
            mark(false);
            if dialled.is_ok() {
                self.breaker.connected();
            }
            dialled
        })
    }
}

/// One that waits, for as long as this lives.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    others: usize,
}

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        Self { count, others: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
