//! What the server is told of the bundle in use here, and when.
//!
//! A root may sign only when those who check its leaves have it. So the agent acknowledges a bundle when its subscribers have answered to
//! it and its files hold it; and one that was refused by any of them not at all, but with the reason.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use palisade_wire::agents::AgentReport;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::roster::{Reasons, Roster};

/// Who has not answered after this time is not waited for: one that hangs must not hold up the roots of all.
const SUBSCRIBERS: Duration = Duration::from_secs(10);

/// The agent's side of one stream.
pub(super) struct Acknowledgement<'a> {
    roster: &'a Roster,
    rejections: watch::Receiver<Reasons>,
    /// Those who were served before a restart are back from then on.
    all_back: Instant,
    /// Digest of the bundle in use; empty before the first state.
    installed: String,
    /// Of the last one before it that was acknowledged.
    before: String,
    /// Ends when everybody has answered to the bundle in use. Begun once for a bundle: states may come at any pace.
    answers: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    /// Why the newest state cannot be used; empty if it can.
    unusable: String,
    said: AgentReport,
    /// A state has come since.
    owed: bool,
}

impl<'a> Acknowledgement<'a> {
    pub(super) fn new(roster: &'a Roster, all_back: Instant) -> Self {
        Self {
            roster,
            rejections: roster.rejections(),
            all_back,
            installed: String::new(),
            before: String::new(),
            answers: None,
            unusable: String::new(),
            said: AgentReport::default(),
            owed: false,
        }
    }

    /// A state is in use, and with it the bundle of this digest.
    pub(super) fn installed(&mut self, digest: String) {
        if digest != self.installed {
            self.installed = digest;
            self.before.clone_from(&self.said.bundle_digest);
            self.answers = Some(Box::pin(answers(self.roster, self.all_back)));
        }
        self.unusable = String::new();
        self.owed = true;
    }

    /// A state cannot be used; what there was stays.
    pub(super) fn refused(&mut self, why: String) {
        (self.unusable, self.owed) = (why, true);
    }

    /// The next thing to say. Can be dropped and called again.
    pub(super) async fn due(&mut self) -> AgentReport {
        loop {
            if let Some(report) = self.report().filter(|report| self.owed || *report != self.said) {
                self.owed = false;
                self.said.clone_from(&report);
                return report;
            }
            let answered = async {
                match &mut self.answers {
                    Some(answers) => answers.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = answered => self.answers = None,
                // It does not end while there is a roster.
                _ = self.rejections.changed() => {}
            }
        }
    }

    /// What is the case now; nothing while that is open.
    fn report(&mut self) -> Option<AgentReport> {
        let reasons = self.rejections.borrow_and_update();
        let open = self.answers.is_some();
        let rejected = match self.unusable.as_str() {
            "" if open => return None,
            "" => reasons.values().next().cloned().unwrap_or_default(),
            unusable => unusable.to_owned(),
        };
        let taken = !open && reasons.is_empty();
        let bundle_digest = if taken { self.installed.clone() } else { self.before.clone() };
        Some(AgentReport { bundle_digest, rejected })
    }
}

/// Waits for all who got trust before.
async fn answers(roster: &Roster, all_back: Instant) {
    tokio::time::sleep_until(all_back).await;
    if tokio::time::timeout(SUBSCRIBERS, roster.acknowledged()).await.is_err() {
        tracing::warn!("a subscriber does not acknowledge the trust bundle; the server is told without it");
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn report(bundle_digest: &str, rejected: &str) -> AgentReport {
        AgentReport { bundle_digest: bundle_digest.to_owned(), rejected: rejected.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn states_that_keep_coming_do_not_put_an_acknowledgement_off() {
        let roster = Roster::default();
        let begun = Instant::now();
        let mut said = Acknowledgement::new(&roster, begun);
        let _hangs = roster.place();
        roster.wake();
        said.installed("one".to_owned());
        let mut seconds = 0;
        while said.due().now_or_never().is_none() {
            seconds += 1;
            assert!(seconds < 60, "it never comes");
            tokio::time::sleep(Duration::from_secs(1)).await;
            roster.update(|state| state.epoch += 1);
            said.installed("one".to_owned());
        }
        assert_eq!((said.said, begun.elapsed().as_secs()), (report("one", ""), SUBSCRIBERS.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_bundle_is_not_acknowledged_until_nobody_refuses_it() {
        let roster = Roster::default();
        let mut said = Acknowledgement::new(&roster, Instant::now());
        said.installed("one".to_owned());
        assert_eq!(said.due().await, report("one", ""));
        let place = roster.place();
        roster.wake();
        // Some are quicker than the agent itself.
        let no = roster.reject("no");
        said.installed("two".to_owned());
        assert_eq!(said.due().now_or_never(), None, "somebody has not answered yet");
        drop(place);
        assert_eq!(said.due().await, report("one", "no"));
        said.installed("two".to_owned());
        assert_eq!(said.due().await, report("one", "no"), "each state is answered");
        drop(no);
        assert_eq!(said.due().await, report("two", ""));
        let _late = roster.reject("late");
        assert_eq!(said.due().await, report("one", "late"));
        said.refused("bad".to_owned());
        assert_eq!(said.due().await, report("one", "bad"));
        assert_eq!(said.due().now_or_never(), None, "nothing is said twice");
    }

    /// What cannot be used is said at once, and speaks for no bundle that somebody does not have yet.
    #[tokio::test(start_paused = true)]
    async fn a_state_of_no_use_does_not_acknowledge_the_one_before() {
        let roster = Roster::default();
        let mut said = Acknowledgement::new(&roster, Instant::now());
        let place = roster.place();
        roster.wake();
        said.installed("one".to_owned());
        said.refused("bad".to_owned());
        assert_eq!(said.due().await, report("", "bad"));
        drop(place);
        assert_eq!(said.due().await, report("one", "bad"));
    }
}
