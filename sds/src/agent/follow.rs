//! Follows the server: trust, entries and revocations as they change.
//!
//! Bundles and leaves are independent: a new trust anchor changes what is trusted and renews nothing, or every edit of the
//! anchors would be a storm of requests. While the server is away, or too old to be followed, everything stays as it was.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use acknowledgement::Acknowledgement;
use palisade_identity::{BundleError, Identity, TrustBundle, TrustBundles, error_chain};
use palisade_wire::agents::agents_client::AgentsClient;
use palisade_wire::agents::{AgentReport, AgentState};
use palisade_wire::channel;
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::Inner;
use super::renew::{self, draw};
use crate::roster::{Entries, Entry, issuers};
use crate::schedule;

mod acknowledgement;

/// Largest state taken: a hundred thousand entries.
const MAX_STATE: usize = 64 * 1024 * 1024;
/// To the beginning of the server's answer.
const ANSWER: Duration = Duration::from_secs(30);
/// A tenth of it is the longest pause between attempts: what is revoked should be known soon after the server is back.
const PATIENCE: Duration = Duration::from_secs(100);
/// Envoy and go-spiffe pause no longer than this between attempts to reach an agent.
const COMING_BACK: Duration = Duration::from_secs(30);

/// Why a state is not used. The agent keeps what it had.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("it has no bundle")]
    NoBundle,
    #[error("its bundle cannot be used")]
    Bundle(#[source] BundleError),
    #[error("there is no identity to use it with")]
    NoIdentity,
}

/// How a stream ended.
enum End {
    /// The server does not know the call, or will not let this agent.
    Refused(Status),
    /// It was there, and is not any more.
    Lost,
    /// It could not be reached.
    Failed(Status),
}

/// A fresh channel to the server; it shows the identity, and has the trust, of the moment when it connects.
pub(super) fn connect(inner: &Inner) -> Result<Channel, channel::ChannelError> {
    let weak = inner.weak.clone();
    channel::tls_with(&inner.config.server, inner.config.certificate_name(), move || {
        let inner = weak.upgrade().ok_or("the agent has ended")?;
        let identity = inner.holder.current().ok_or("there is no identity yet")?;
        Ok(Arc::new(renew::tls_as(&identity, &inner.clock)?))
    })
}

/// Runs until `shutdown`.
pub(super) async fn run(inner: &Inner, shutdown: CancellationToken) {
    let mut ready = inner.holder.readiness();
    let mut failures = 0;
    let all_back = Instant::now() + inner.coming_back();
    loop {
        let session = async {
            // Without a certificate there is nothing to be recognised by.
            if ready.wait_for(|ready| *ready).await.is_err() {
                std::future::pending::<()>().await;
            }
            follow(inner, all_back).await
        };
        let Some(end) = shutdown.run_until_cancelled(session).await else { return };
        // Whatever the answer was, it was one: without entries the agent is what it was before there were any.
        if inner.roster.now().entries.is_none() {
            inner.roster.update(|state| state.entries = Some(Arc::default()));
            if matches!(end, End::Refused(_)) {
                inner.keep().await;
            }
        }
        let pause = inner.pause_after(&end, &mut failures);
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn follow(inner: &Inner, all_back: Instant) -> End {
    let channel = match inner.channel() {
        Ok(channel) => channel,
        Err(status) => return End::Failed(status),
    };
    let mut client = AgentsClient::new(channel).max_decoding_message_size(MAX_STATE);
    let (reports, outgoing) = mpsc::channel(4);
    // There is room: it is empty. Nothing is acknowledged before the first state.
    let _ = reports.try_send(AgentReport::default());
    let opened = tokio::time::timeout(ANSWER, client.follow(ReceiverStream::new(outgoing))).await;
    let mut states = match opened {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return inner.ended(status).await,
        Err(_) => return End::Failed(Status::deadline_exceeded("no answer in time")),
    };
    listen(inner, &mut states, &reports, all_back).await
}

async fn listen(
    inner: &Inner,
    states: &mut Streaming<AgentState>,
    reports: &mpsc::Sender<AgentReport>,
    all_back: Instant,
) -> End {
    let mut any = false;
    let mut acknowledgement = Acknowledgement::new(&inner.roster, all_back);
    loop {
        let state = tokio::select! {
            state = states.message() => state,
            report = acknowledgement.due() => {
                if reports.send(report).await.is_err() {
                    return End::Lost;
                }
                continue;
            }
        };
        let state = match state {
            Ok(Some(state)) => state,
            Ok(None) => return End::Lost,
            // One that was of use is opened again at once: it ends with the certificate that it was opened with, too.
            Err(status) => {
                let end = inner.ended(status).await;
                return if any { End::Lost } else { end };
            }
        };
        any = true;
        inner.following.store(true, Ordering::Release);
        match inner.apply(state).await {
            Ok(()) => acknowledgement.installed(inner.digest()),
            Err(error) => {
                let why = error_chain(&error);
                tracing::error!(reason = %why, "a state of the server cannot be used; what there was stays in use");
                acknowledgement.refused(why);
            }
        }
    }
}

impl End {
    fn of(status: Status) -> Self {
        match status.code() {
            Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => Self::Refused(status),
            _ => Self::Failed(status),
        }
    }
}

impl Inner {
    /// Whoever is revoked is told so by the refusal, and by nothing else.
    async fn ended(&self, status: Status) -> End {
        if let Some(current) = self.holder.current()
            && let serial = current.svid.serial()
            && palisade_wire::revoked_serial(&status) == Some(serial)
        {
            self.trust(|bundles| {
                bundles.with_denied(bundles.denied().iter().cloned().chain([serial.to_owned()]).collect());
            })
            .await;
            self.keep().await;
        }
        End::of(status)
    }

    fn pause_after(&self, end: &End, failures: &mut u32) -> Duration {
        self.following.store(false, Ordering::Release);
        match end {
            End::Refused(status) if status.code() == Code::Unimplemented => {
                tracing::debug!("the server gives out no entries");
                schedule::retry_after_refusal(draw())
            }
            End::Refused(status) => {
                tracing::warn!(reason = %error_chain(status), "the server does not let this agent follow it");
                schedule::retry_after_refusal(draw())
            }
            End::Lost => {
                *failures = 1;
                tracing::info!("the server is not followed for a moment");
                schedule::retry_after(*failures, Some(PATIENCE), draw())
            }
            End::Failed(status) => {
                *failures = failures.saturating_add(1);
                let pause = schedule::retry_after(*failures, Some(PATIENCE), draw());
                let retry_in_ms = pause.as_millis();
                tracing::warn!(reason = %error_chain(status), retry_in_ms, "the server cannot be followed");
                pause
            }
        }
    }

    /// How long those who were served before this start may take to come back. Nobody was before the first identity, and short
    /// lives cannot wait for long.
    pub(super) fn coming_back(&self) -> Duration {
        let served_before = self.config.socket.as_ref().and_then(|_| self.holder.current());
        served_before.map_or(Duration::ZERO, |identity| {
            let life = identity.svid.not_after().as_secs().saturating_sub(identity.svid.not_before().as_secs());
            COMING_BACK.min(Duration::from_secs(life) / 8)
        })
    }

    /// Digest of the bundle in use, lower-case hex; empty while there is none.
    fn digest(&self) -> String {
        let current = self.holder.current();
        let bundle = current.as_deref().and_then(|now| now.bundles.get(self.config.trust_domain.as_str()));
        bundle.iter().flat_map(|bundle| bundle.digest()).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Takes a state of the server into use, and keeps it.
    async fn apply(&self, state: AgentState) -> Result<(), StateError> {
        let wire = state.bundle.ok_or(StateError::NoBundle)?;
        let authorities = wire.x509_authorities.into_iter().map(CertificateDer::from).collect();
        let domain = &self.config.trust_domain;
        let bundle = TrustBundle::new(domain.clone(), authorities).map_err(StateError::Bundle)?;
        self.holder.current().ok_or(StateError::NoIdentity)?;
        let entries = Entries::new(state.entries.into_iter().filter_map(|entry| self.checked(entry)));
        let jwks = wire.jwt_jwks;
        self.roster.update(|now| {
            if now.entries.as_deref() != Some(&entries) {
                now.svids = Arc::new(
                    now.svids
                        .iter()
                        .filter(|(id, held)| {
                            entries.get(id).is_some_and(|entry| entry.spiffe_id == held.made_for.spiffe_id)
                        })
                        .map(|(id, held)| (id.clone(), Arc::clone(held)))
                        .collect(),
                );
                now.entries = Some(Arc::new(entries));
            }
            now.jwks = Arc::new([(domain.as_str().to_owned(), jwks)].into());
            now.taint(&state.tainted_authorities);
        });
        self.trust(|bundles| {
            if bundles.get(domain.as_str()).is_none_or(|known| known.digest() != bundle.digest()) {
                bundles.insert(bundle);
            }
            bundles.with_denied(state.denied_serials.into_iter().collect());
        })
        .await;
        self.keep().await;
        Ok(())
    }

    /// An entry that can be used; another one is logged, and the rest are used without it.
    fn checked(&self, entry: palisade_wire::agents::Entry) -> Option<Entry> {
        let id = entry.id.clone();
        Entry::parse(entry, &self.config.trust_domain)
            .inspect_err(|error| tracing::error!(entry = id, error = %error_chain(error), "an entry cannot be used"))
            .ok()
    }

    /// Changes the bundles around the certificate in hand, which is renewed only if it must not be used any more.
    async fn trust(&self, change: impl FnOnce(&mut TrustBundles)) {
        let _alone = self.changing.lock().await;
        let Some(current) = self.holder.current() else { return };
        let (now, svid) = (self.clock.now(), &current.svid);
        let mut bundles = current.bundles.as_ref().clone();
        change(&mut bundles);
        let tainted = self.roster.now().is_tainted(&issuers(svid.chain()), self.own_epoch.load(Ordering::Acquire));
        let refused = svid.usable(&current.bundles, now).is_ok() && svid.usable(&bundles, now).is_err();
        if *current.bundles != bundles {
            tracing::info!(
                authorities = bundles.get(self.config.trust_domain.as_str()).map_or(0, |own| own.authorities().len()),
                denied = bundles.denied().len(),
                "the trust bundle is changed"
            );
            let identity = Arc::new(Identity { svid: Arc::clone(svid), bundles: Arc::new(bundles) });
            renew::save(self, &identity).await;
            self.holder.replace(identity, now);
        }
        if tainted || refused {
            tracing::warn!(serial = svid.serial(), tainted, "the certificate in hand must go; another is asked for");
            self.renew_now.notify_one();
        }
    }

    /// Writes the state down. Failing is no reason not to use it.
    async fn keep(&self) {
        let (storage, state) = (self.storage.clone(), self.roster.now());
        let denied = self.holder.current().map(|identity| identity.bundles.denied().clone()).unwrap_or_default();
        let kept = tokio::task::spawn_blocking(move || {
            if let Some(entries) = &state.entries {
                storage.keep_svids(entries);
            }
            storage.save_state(&state, &denied)
        });
        if let Ok(Err(error)) = kept.await {
            tracing::error!(error = %error_chain(&error), "what the server said is used but not stored");
        }
    }
}
