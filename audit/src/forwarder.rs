//! From the spool to the server, until the server has said that it is durable there.
//!
//! Nothing about progress is kept but the spool itself: after a lost connection, a lost acknowledgement or a restart the
//! forwarder begins again at the first event that was not acknowledged, and the store drops what it has. The channel comes from
//! a factory that is called at every connect, because the certificates it is made of change; a stream is ended and made anew
//! from time to time for the same reason.

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::metrics::RecorderMetrics;
use crate::recorder::Recording;
use crate::spool::{Chunk, Position, SpoolReader};

mod session;
use session::{End, Session};

/// Why a channel could not be made.
pub type ConnectError = Box<dyn Error + Send + Sync>;

/// Makes a channel to the server, with the certificates of the moment.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Channel, ConnectError>> + Send + Sync>;

/// Settings of a forwarder.
#[derive(Debug, Clone)]
pub struct ForwarderConfig {
    /// First pause after a failure; doubled up to `back_off_most`, each shortened at random by up to a half.
    pub back_off: Duration,
    /// Longest pause after a failure.
    pub back_off_most: Duration,
    /// How long connecting, or an acknowledgement, may take.
    pub patience: Duration,
    /// Age at which a stream is made anew, so that the server sees a current certificate.
    pub stream_lifetime: Duration,
    /// How long the stop waits for what is still to be acknowledged. It stays on disk otherwise.
    pub flush: Duration,
}

impl Default for ForwarderConfig {
    fn default() -> Self {
        Self {
            back_off: Duration::from_millis(100),
            back_off_most: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            stream_lifetime: Duration::from_secs(900),
            flush: Duration::from_secs(5),
        }
    }
}

/// Sends what the spool holds.
pub struct Forwarder {
    reader: Reader,
    enforcer: String,
    config: ForwarderConfig,
    connect: Connect,
    metrics: RecorderMetrics,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder")
            .field("enforcer", &self.enforcer)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why one connection ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("cannot connect to the audit server")]
    Connect(#[source] ConnectError),
    #[error("no answer from the audit server for {} s", .0.as_secs())]
    Silence(Duration),
    #[error("the audit server refused")]
    Refused(#[source] tonic::Status),
    #[error("the audit server ended the stream")]
    Ended,
    #[error("the audit server acknowledged events that it was not sent")]
    Acknowledgement,
    #[error("the audit spool's reader failed")]
    Reader(#[source] tokio::task::JoinError),
}

impl Recording {
    /// Takes the recording apart into what decides, what writes and what sends.
    #[must_use]
    pub fn forward(self, config: ForwarderConfig, connect: Connect) -> (crate::Recorder, crate::Spooler, Forwarder) {
        let forwarder = Forwarder {
            enforcer: self.reader.enforcer().to_owned(),
            reader: Reader(Arc::new(Mutex::new(self.reader))),
            config,
            connect,
            metrics: self.metrics,
        };
        (self.recorder, self.spooler, forwarder)
    }
}

impl Forwarder {
    /// Sends until `shutdown`, then until all is acknowledged or [`ForwarderConfig::flush`] has passed. Give it the token of the
    /// [`Spooler`](crate::Spooler): it waits for the spool's end before its own. Failures are logged, once for each series, and
    /// tried again.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop = Stop { token: shutdown, flush: self.config.flush };
        let mut failures = 0_u32;
        let deadline = async {
            stop.token.cancelled().await;
            tokio::time::sleep(stop.flush).await;
        };
        let mut deadline = std::pin::pin!(deadline);
        loop {
            let begun = Instant::now();
            let session = Session::run(&self, &stop.token);
            let ended = tokio::select! {
                ended = session => ended,
                () = &mut deadline => {
                    tracing::warn!(enforcer = %self.enforcer, bytes = self.reader.with(|reader| reader.bytes()), "stopped with audit events that the server has not acknowledged; they stay in the spool");
                    return;
                }
            };
            match ended {
                Ok(End::Flushed) => return,
                Ok(End::Old) => failures = 0,
                Err(error) => {
                    if begun.elapsed() > self.config.back_off_most {
                        failures = 0;
                    }
                    self.tell(failures, &error);
                    let pause = back_off(&self.config, failures);
                    failures = failures.saturating_add(1);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = &mut deadline => return,
                    }
                }
            }
        }
    }

    fn tell(&self, failures: u32, error: &SessionError) {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        if failures == 0 {
            tracing::warn!(enforcer = %self.enforcer, %error, cause, "audit events wait in the spool");
        } else {
            tracing::debug!(enforcer = %self.enforcer, %error, cause, failures, "audit events still wait in the spool");
        }
    }
}

struct Stop {
    token: CancellationToken,
    flush: Duration,
}

/// The spool's reader, moved to a blocking thread for each read.
#[derive(Clone)]
struct Reader(Arc<Mutex<SpoolReader>>);

impl Reader {
    fn with<T>(&self, act: impl FnOnce(&mut SpoolReader) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut SpoolReader) -> T + Send + 'static,
    ) -> Result<T, SessionError> {
        let reader = self.clone();
        tokio::task::spawn_blocking(move || reader.with(act)).await.map_err(SessionError::Reader)
    }

    async fn read(&self) -> Result<Chunk, SessionError> {
        self.blocking(SpoolReader::read).await
    }

    async fn acknowledge(&self, position: Position) -> Result<(), SessionError> {
        self.blocking(move |reader| reader.acknowledge(position)).await
    }
}

/// Exponential, and between a half and the whole of it, so that enforcers do not come back all at once.
fn back_off(config: &ForwarderConfig, failures: u32) -> Duration {
    let whole = config.back_off.saturating_mul(1 << failures.min(16)).min(config.back_off_most);
    // The standard library's hash keys are random per call: enough for jitter.
    let random = RandomState::new().hash_one(failures);
    let part = u32::try_from(random % 1000).unwrap_or(0);
    whole / 2 + (whole / 2) * part / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_most_and_are_never_short() {
        let config = ForwarderConfig::default();
        for failures in 0..40 {
            let whole = (config.back_off * 2_u32.pow(failures.min(16))).min(config.back_off_most);
            let pause = back_off(&config, failures);
            assert!(pause >= whole / 2 && pause <= whole, "{failures}: {pause:?}");
        }
    }
}
