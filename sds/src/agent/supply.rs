//! Certificates for the entries of this agent: made here ahead of anybody asking, many in one call, replaced in time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{PrivateKey, SvidError, UnixTime, X509Svid, error_chain};
use palisade_wire::agents::agents_client::AgentsClient;
use palisade_wire::agents::{IssueX509Request, X509Answer, X509Order};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::Inner;
use super::renew::{draw, key_and_csr};
use crate::authority;
use crate::metrics::Outcome;
use crate::roster::{Entry, Held, State, issuers};
use crate::schedule::{self, REEVALUATE, Validity};

/// Most certificates asked for in one call.
const BATCH: usize = 500;
/// For one call.
const DEADLINE: Duration = Duration::from_secs(30);
/// Answers of that many certificates with their chains.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Why one certificate was not taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("the server refused ({0:?}): {1}")]
    Refused(Code, String),
    #[error("it is no certificate for our key")]
    Svid(#[source] SvidError),
    #[error("it is `{found}`, where the entry says `{expected}`")]
    OtherId { found: String, expected: String },
    #[error("a peer would not accept it")]
    Unusable(#[source] SvidError),
}

/// Runs until `shutdown`.
pub(super) async fn run(inner: &Inner, shutdown: CancellationToken) {
    let mut supply = Supply { inner, batch: BATCH, failures: 0, not_before: None, waiting: HashMap::new() };
    let mut changed = inner.roster.subscribe();
    let mut ready = inner.holder.readiness();
    let working = async {
        loop {
            // Without a certificate of its own the agent is recognised by nobody.
            if ready.wait_for(|ready| *ready).await.is_err() {
                return;
            }
            changed.mark_unchanged();
            let state = inner.roster.now();
            let (due, pause) = supply.due(&state);
            if due.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = changed.changed() => {}
                }
                continue;
            }
            supply.ask(&state, due).await;
        }
    };
    shutdown.run_until_cancelled(working).await;
}

struct Supply<'a> {
    inner: &'a Inner,
    /// How many are asked for at once: halved when a call fails, doubled when one succeeds.
    batch: usize,
    /// Failed calls in a row, and when the next may be made.
    failures: u32,
    not_before: Option<Instant>,
    /// Entries that were refused: as they were, how often, and when they may be asked for again.
    waiting: HashMap<String, (Arc<Entry>, u32, Instant)>,
}

impl Supply<'_> {
    /// What to ask for now, the missing first; and how long to sleep if there is nothing.
    fn due(&mut self, state: &State) -> (Vec<Arc<Entry>>, Duration) {
        let (now, instant) = (self.inner.clock.now(), Instant::now());
        let Some(entries) = &state.entries else { return (Vec::new(), REEVALUATE) };
        self.waiting.retain(|id, (entry, ..)| entries.get(id) == Some(entry));
        let (mut missing, mut old, mut pause) = (Vec::new(), Vec::new(), REEVALUATE);
        for entry in entries.iter() {
            let held = state.svids.get(&entry.id);
            let left = held.map_or(Duration::ZERO, |held| self.until_due(state, entry, held, now));
            let held_back = self.waiting.get(&entry.id).map(|(_, _, at)| at.saturating_duration_since(instant));
            let left = left.max(held_back.unwrap_or_default());
            match (left.is_zero(), held) {
                (true, None) => missing.push(Arc::clone(entry)),
                (true, Some(_)) => old.push(Arc::clone(entry)),
                (false, _) => pause = pause.min(left),
            }
        }
        missing.append(&mut old);
        let call = self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(instant));
        if !call.is_zero() && !missing.is_empty() {
            return (Vec::new(), call.min(pause));
        }
        missing.truncate(self.batch);
        (missing, pause)
    }

    /// Nothing if the certificate has to be replaced now.
    fn until_due(&self, state: &State, entry: &Entry, held: &Held, now: UnixTime) -> Duration {
        let svid = &held.svid;
        let usable = self.inner.holder.current().is_some_and(|own| svid.usable(&own.bundles, now).is_ok());
        if !usable || !entry.same_certificate(&held.made_for) || state.is_tainted(&held.issuers, held.epoch) {
            return Duration::ZERO;
        }
        schedule::wait(now, held.due)
    }

    async fn ask(&mut self, state: &State, due: Vec<Arc<Entry>>) {
        let made = tokio::task::spawn_blocking(move || orders(due)).await;
        let Ok(Ok((due, keys, orders))) = made else {
            self.failed(&Status::internal("no keys could be made"));
            return;
        };
        let mut request = Request::new(IssueX509Request { orders });
        request.set_timeout(DEADLINE);
        let channel = match self.inner.channel() {
            Ok(channel) => channel,
            Err(status) => return self.failed(&status),
        };
        let mut client = AgentsClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let answer = tokio::time::timeout(DEADLINE, client.issue_x509(request)).await;
        let answers = match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(answer) => answer.into_inner().answers,
            Err(status) => return self.failed(&status),
        };
        if answers.len() != due.len() {
            return self.failed(&Status::internal("it answered another number of orders than were sent"));
        }
        (self.failures, self.not_before) = (0, None);
        self.batch = (self.batch * 2).min(BATCH);
        let mut taken = Vec::new();
        for ((entry, key), answer) in due.into_iter().zip(keys).zip(answers) {
            match self.take(&entry, key, answer, state.epoch) {
                Ok(held) => taken.push(Arc::new(held)),
                Err(error) => self.hold_back(&entry, &error),
            }
        }
        self.install(taken).await;
    }

    /// A whole call failed: fewer the next time, and not at once.
    fn failed(&mut self, status: &Status) {
        self.failures = self.failures.saturating_add(1);
        self.batch = (self.batch / 2).max(1);
        let mut pause = match status.code() {
            Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => {
                schedule::retry_after_refusal(draw())
            }
            _ => schedule::retry_after(self.failures, Some(REEVALUATE * 2), draw()),
        };
        if let Some(wish) = authority::pushback(status) {
            pause = pause.max(wish);
        }
        let reason = error_chain(status);
        tracing::warn!(reason, retry_in_ms = pause.as_millis(), "no certificates for workloads; theirs stay in use");
        self.inner.metrics.renewal(Outcome::Unavailable);
        self.not_before = Some(Instant::now() + pause);
    }

    /// One entry's certificate was refused or is of no use; the others are not delayed by it.
    fn hold_back(&mut self, entry: &Arc<Entry>, error: &TakeError) {
        let failures = self.waiting.get(&entry.id).map_or(0, |(_, failures, _)| *failures).saturating_add(1);
        let pause = schedule::retry_after(failures, None, draw());
        let (id, reason) = (&entry.spiffe_id, error_chain(error));
        tracing::warn!(entry = entry.id, %id, reason, retry_in_ms = pause.as_millis(), "no certificate for a workload");
        self.inner.metrics.renewal(Outcome::Refused);
        self.waiting.insert(entry.id.clone(), (Arc::clone(entry), failures, Instant::now() + pause));
    }

    /// Checks one answer as a peer would.
    fn take(&self, entry: &Arc<Entry>, key: PrivateKey, answer: X509Answer, epoch: u64) -> Result<Held, TakeError> {
        if answer.code != 0 {
            return Err(TakeError::Refused(Code::from(answer.code), answer.reason));
        }
        let now = self.inner.clock.now();
        let own = self.inner.holder.current();
        let roots = own.iter().filter_map(|own| own.bundles.get(entry.spiffe_id.trust_domain_name()));
        let roots: Vec<_> = roots.flat_map(|bundle| bundle.authorities()).collect();
        let mut chain: Vec<CertificateDer<'static>> = answer.chain.into_iter().map(CertificateDer::from).collect();
        chain.retain(|certificate| !roots.contains(&certificate));
        let svid = X509Svid::new(chain, key).map_err(TakeError::Svid)?;
        if *svid.id() != entry.spiffe_id {
            let (found, expected) = (svid.id().to_string(), entry.spiffe_id.to_string());
            return Err(TakeError::OtherId { found, expected });
        }
        if let Some(own) = &own {
            svid.usable(&own.bundles, now).map_err(TakeError::Unusable)?;
        }
        let due = due(&svid, now, answer.renew_at);
        let issuers = issuers(svid.chain());
        Ok(Held { svid: Arc::new(svid), made_for: Arc::clone(entry), due, issuers, epoch })
    }

    /// Into use first, for a caller may wait; then onto the disk.
    async fn install(&mut self, taken: Vec<Arc<Held>>) {
        if taken.is_empty() {
            return;
        }
        let fresh: BTreeMap<String, Arc<Held>> =
            taken.iter().map(|held| (held.made_for.id.clone(), Arc::clone(held))).collect();
        tracing::info!(certificates = fresh.len(), "new certificates for workloads are in place");
        self.waiting.retain(|id, _| !fresh.contains_key(id));
        self.inner.metrics.renewal(Outcome::Renewed);
        self.inner.roster.update(|state| {
            let mut svids = state.svids.as_ref().clone();
            // An entry may have gone, or become another's, while its certificate was made.
            let entries = state.entries.clone().unwrap_or_default();
            svids.extend(
                fresh.into_iter().filter(|(id, held)| {
                    entries.get(id).is_some_and(|entry| entry.spiffe_id == held.made_for.spiffe_id)
                }),
            );
            state.svids = Arc::new(svids);
        });
        let storage = self.inner.storage.clone();
        let saved = tokio::task::spawn_blocking(move || taken.iter().try_for_each(|held| storage.save_svid(held)));
        if let Ok(Err(error)) = saved.await {
            tracing::error!(error = %error_chain(&error), "certificates of workloads are used but not stored");
        }
    }
}

type Orders = (Vec<Arc<Entry>>, Vec<PrivateKey>, Vec<X509Order>);

/// A new key and a request for each entry.
fn orders(due: Vec<Arc<Entry>>) -> Result<Orders, super::RenewError> {
    let (mut keys, mut orders) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
    for entry in &due {
        let (key, csr) = key_and_csr()?;
        keys.push(key);
        orders.push(X509Order { entry_id: entry.id.clone(), csr: csr.der().to_vec() });
    }
    Ok((due, keys, orders))
}

/// The server's wish if it lies within the certificate's life, else the middle of that, spread.
fn due(svid: &X509Svid, now: UnixTime, wish: i64) -> UnixTime {
    match u64::try_from(wish) {
        Ok(wish) if wish > now.as_secs() && wish < svid.not_after().as_secs() => {
            UnixTime::since_unix_epoch(Duration::from_secs(wish))
        }
        _ => {
            let validity = Validity { not_before: svid.not_before(), not_after: svid.not_after(), received: now };
            schedule::renew_at(&validity, draw())
        }
    }
}
