//! The life of one stream, whichever of the two protocols it speaks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Answers;
use super::grpc::Messages;
use crate::attest::DENIED;
use crate::metrics::{Metrics, StreamGuard};
use crate::roster::{Place, Rejection};
use crate::schedule;
use crate::secrets::{Feed, Standing, View, Who};

/// What one subscriber asked for and was given: a pure state machine.
pub(crate) trait Machine: Send + 'static {
    /// What the client sends.
    type Request: Message + Default;
    /// What it gets.
    type Response: Message + 'static;

    /// Takes one message in.
    ///
    /// # Errors
    /// The status that ends the stream, for messages that no client of this service sends.
    fn hear(&mut self, request: Self::Request, metrics: &Metrics) -> Result<(), Status>;

    /// The response that is due, if any. Called after every message and every change.
    fn reply(&mut self, view: &View) -> Option<Self::Response>;

    /// What the client has said about the last response. It does not change its mind.
    fn answer(&self) -> Answer<'_>;
}

/// A client's answer, as far as trust is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// None yet.
    Open,
    /// It has what it was given.
    Taken,
    /// It has said no to the bundles in it and keeps those before, for this reason.
    Rejected(&'a str),
}

/// Everything one open stream holds.
pub(crate) struct Open<M: Machine> {
    pub(crate) machine: M,
    pub(crate) who: Arc<Who>,
    pub(crate) inbound: Messages<M::Request>,
    pub(crate) feed: Feed,
    pub(crate) changed: watch::Receiver<()>,
    /// Up to here the client has answered to everything.
    pub(crate) place: Place,
    /// While it does not have the bundles that it was given.
    pub(crate) rejection: Option<Rejection>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    /// Counts the stream while it is open.
    pub(crate) _guard: StreamGuard,
}

/// Runs the stream inside of the connection's task: it is polled only when the client can take more, so a slow client
/// gets the newest state and not a queue of old ones.
pub(crate) fn drive<M: Machine>(open: Open<M>) -> Answers<M::Response> {
    // Boxed once more, for the future has two places for what it is given.
    Box::pin(stream::unfold(Some(Box::new(open)), |open| async {
        let mut open = open?;
        match open.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(open))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl<M: Machine> Open<M> {
    /// The next response; `None` when the client has hung up or the process stops.
    async fn next(&mut self) -> Result<Option<M::Response>, Status> {
        loop {
            self.changed.mark_unchanged();
            let place = self.feed.place();
            let view = self.feed.view(&self.who);
            if view.standing == Standing::Nobody {
                return Err(Status::permission_denied(DENIED));
            }
            if let Some(response) = self.machine.reply(&view) {
                self.metrics.pushes.inc();
                return Ok(Some(response));
            }
            self.settle(place);
            if !self.wait(&view).await? {
                return Ok(None);
            }
        }
    }

    /// Notes what the client has said, unless it has yet to speak.
    fn settle(&mut self, place: Place) {
        match self.machine.answer() {
            Answer::Open => return,
            Answer::Taken => self.rejection = None,
            Answer::Rejected(why) => {
                if self.rejection.as_ref().is_none_or(|known| known.reason() != why) {
                    self.rejection = Some(self.feed.reject(why));
                }
            }
        }
        self.place = place;
    }

    /// Waits for something to happen. False means that the stream is over.
    async fn wait(&mut self, view: &View) -> Result<bool, Status> {
        tokio::select! {
            message = self.inbound.next() => match message? {
                Some(request) => self.machine.hear(request, &self.metrics).map(|()| true),
                None => Ok(false),
            },
            changed = self.changed.changed() => Ok(changed.is_ok()),
            () = later(view) => Ok(true),
            () = self.shutdown.cancelled() => Ok(false),
        }
    }
}

/// A withheld certificate becomes good by time alone when a stepped clock is set right: look again each minute.
async fn later(view: &View) {
    if view.is_whole() {
        std::future::pending().await
    } else {
        let minute: Duration = schedule::REEVALUATE;
        tokio::time::sleep(minute).await;
    }
}
