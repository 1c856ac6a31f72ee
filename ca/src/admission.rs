//! Who is served when more is asked for than can be done: everybody in turn, and nobody without bound.
//!
//! Two things stand in front of issuing. A *fair queue*: while the authority is busy, callers wait, and each caller's turn comes
//! once a round, however many requests it has; when too many wait, the newest request of whoever has most is sent away. And a
//! *budget* for each identity: so many certificates a second, some more at once. Who fails to prove itself pays from a budget of its
//! address, so that guessing is bounded before it costs a signature check. Whoever is sent away is told when to come back.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_wire::Caller;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataValue;

mod buckets;
mod queue;

use buckets::Buckets;
use queue::FairQueue;
pub(crate) use queue::Turn;

use crate::attest::{Attested, certificate};

/// Requests worked on at once: enough that all of one flush to disk gather in it.
const IN_FLIGHT: usize = 512;
/// Failures to prove oneself, a second and at once, for one address.
const FAILURES: (u32, u32) = (50, 500);
/// When the queue is full: about as long as it takes to empty it.
const QUEUE_PAUSE: Duration = Duration::from_secs(3);
/// Between two lines in the log about callers that are sent away: a flood of requests must not be one of lines.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// How much is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Certificates a second for one identity.
    pub rate: u32,
    /// So many at once, when it has asked for none before.
    pub burst: u32,
    /// Requests of all callers together that may wait for their turn.
    pub waiting: u32,
}

impl Default for AdmissionLimits {
    /// 500 a second and 2,000 at once for one identity; 16,384 waiting.
    fn default() -> Self {
        Self { rate: 500, burst: 2_000, waiting: 16_384 }
    }
}

/// Why somebody has to come back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Later {
    /// A stable reason.
    pub(crate) reason: &'static str,
    /// When to try again.
    pub(crate) after: Duration,
}

impl Later {
    /// RESOURCE_EXHAUSTED, with the pause in milliseconds under our name and under the one that gRPC clients heed by themselves
    /// (gRPC A6).
    pub(crate) fn status(&self) -> Status {
        let millis = self.after.as_millis().max(1);
        let mut status = Status::resource_exhausted(format!("{}: try again in {millis} ms", self.reason));
        if let Ok(value) = MetadataValue::try_from(millis.to_string()) {
            status.metadata_mut().insert("retry-after-ms", value.clone());
            status.metadata_mut().insert("grpc-retry-pushback-ms", value);
        }
        status
    }
}

/// The queue and the budgets; clones share them, so that several services in front of one authority serve in one order.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: FairQueue,
    budgets: Buckets,
    failures: Buckets,
    /// When the log last said that somebody was sent away.
    said: Mutex<Option<Instant>>,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(AdmissionLimits::default())
    }
}

impl Admission {
    /// Serves within these limits; zero counts as one.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        let waiting = usize::try_from(limits.waiting).unwrap_or(usize::MAX);
        Self(Arc::new(Inner {
            queue: FairQueue::new(IN_FLIGHT, waiting.max(1)),
            budgets: Buckets::new(limits.rate, limits.burst),
            failures: Buckets::new(FAILURES.0, FAILURES.1),
            said: Mutex::default(),
        }))
    }

    /// Waits for the caller's turn, which lasts as long as what is returned lives. A caller whose certificate says who it is pays
    /// now, before it costs anything, for `certificates` at once; the others when they are attested.
    pub(crate) async fn admit(&self, caller: &Caller, certificates: u32) -> Result<Turn, Later> {
        let now = Instant::now();
        let key = match &caller.peer {
            Some(peer) => {
                let id = peer.id().to_string();
                self.0.budgets.take(&id, certificates, now).map_err(|after| Later { reason: "rate-limited", after })?;
                id
            }
            None => {
                let address = address(caller);
                let broke = self.0.failures.check(&address, now);
                broke.map_err(|after| Later { reason: "too-many-failures", after })?;
                address
            }
        };
        let full = Later { reason: "queue-full", after: QUEUE_PAUSE };
        self.0.queue.turn(key).await.ok_or(full)
    }

    /// Takes a certificate from the budget of who was attested. Of an account that many pods have, each pod has its own.
    pub(crate) fn charge(&self, attested: &Attested) -> Result<(), Later> {
        if attested.attestor == certificate::NAME {
            return Ok(());
        }
        let pod = attested.kubernetes.as_ref().and_then(|holder| holder.pod.as_ref());
        let key = pod.map_or_else(|| attested.id.to_string(), |pod| format!("{} {}", attested.id, pod.uid));
        self.0.budgets.take(&key, 1, Instant::now()).map_err(|after| Later { reason: "rate-limited", after })
    }

    /// Whether the log is to say that somebody is sent away; the metrics count everybody.
    pub(crate) fn says(&self, now: Instant) -> bool {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.is_none_or(|said| now.saturating_duration_since(said) >= BETWEEN_LINES);
        if due {
            *said = Some(now);
        }
        due
    }

    /// Evidence was refused.
    pub(crate) fn failed(&self, caller: &Caller) {
        // Who has nothing left is told with its next request.
        let _ = self.0.failures.take(&address(caller), 1, Instant::now());
    }
}

/// Where a caller comes from: an IPv4 address, an IPv6 network of 64 bits (one machine has that many addresses), a user.
fn address(caller: &Caller) -> String {
    match (caller.address.map(|address| address.ip().to_canonical()), caller.unix) {
        (Some(IpAddr::V4(ip)), _) => ip.to_string(),
        (Some(IpAddr::V6(ip)), _) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        (None, Some(unix)) => format!("uid {}", unix.uid),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(address: &str) -> Caller {
        Caller { address: Some(address.parse().unwrap()), ..Caller::default() }
    }

    #[test]
    fn one_machine_is_one_address() {
        assert_eq!(address(&caller("10.0.0.1:5")), address(&caller("10.0.0.1:6")));
        assert_eq!(address(&caller("10.0.0.1:5")), address(&caller("[::ffff:10.0.0.1]:5")));
        assert_eq!(address(&caller("[2001:db8:0:1::7]:5")), address(&caller("[2001:db8:0:1:ffff::8]:5")));
        assert_ne!(address(&caller("[2001:db8:0:1::7]:5")), address(&caller("[2001:db8:0:2::7]:5")));
    }

    #[test]
    fn the_log_is_not_flooded_with_the_authority() {
        let (admission, start) = (Admission::default(), Instant::now());
        let said = [0, 1, 999, 1_000, 1_001].map(|millis| admission.says(start + Duration::from_millis(millis)));
        assert_eq!(said, [true, false, false, true, false]);
    }

    #[tokio::test]
    async fn guessing_is_bounded_for_its_address_alone() {
        let admission = Admission::default();
        for _ in 0..FAILURES.1 + 50 {
            admission.failed(&caller("10.0.0.1:5"));
        }
        let later = admission.admit(&caller("10.0.0.1:6"), 1).await.unwrap_err();
        assert_eq!(later.reason, "too-many-failures");
        assert!(later.after > Duration::ZERO && later.after <= Duration::from_secs(1));
        admission.admit(&caller("10.0.0.2:5"), 1).await.unwrap();
    }
}
