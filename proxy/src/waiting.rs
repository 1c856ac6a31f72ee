//! A caller whose request waits for an answer from somewhere else: a provider, or the keys of a token.
//!
//! Deciding in place needs none of this. While something is waited for, the caller may go away, the connection may be
//! told to go, and the provider may want the body; what the two versions of HTTP do about it is behind one trait.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use palisade_authz::gate::{BodySource, Reading};
use tokio::time::{Instant, sleep};

/// Bytes a second that a body has to bring in the long run, beside what patience gives it.
const PACE: u64 = 1024;

/// Why waiting ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// The caller went away, or has to: nobody is there to be answered.
    Gone,
    /// The body that was read meanwhile is framed wrongly.
    Malformed,
    /// The body that somebody waits for does not come.
    Late,
}

/// The caller's side of a request that waits.
pub(crate) trait Caller: Sync {
    /// Reads the body until more than `max` bytes or its end are there: the first `max` bytes, and whether that is all.
    /// What was read is forwarded all the same.
    fn poll_body(&self, cx: &mut Context<'_>, max: usize) -> Poll<Result<(Bytes, bool), Left>>;

    /// Bytes of the body that came so far.
    fn came(&self) -> usize;

    /// Some when nobody waits any more.
    fn poll_left(&self, cx: &mut Context<'_>) -> Option<Left>;

    /// Something of the body was asked for.
    fn was_read(&self) -> bool;
}

/// The body of a waiting request, as the gate asks for it.
pub(crate) struct Body<'a> {
    pub(crate) caller: &'a dyn Caller,
    /// How long nothing of it may come, and how far all of it may fall behind [`PACE`].
    pub(crate) patience: Duration,
    /// Set when that was too long.
    pub(crate) late: &'a AtomicBool,
}

impl BodySource for Body<'_> {
    fn read(&mut self, max: u32) -> Reading<'_> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let Body { caller, patience, late } = *self;
        let first = Instant::now() + patience;
        let mut end = Box::pin(sleep(patience));
        let mut came = 0;
        Box::pin(poll_fn(move |cx| {
            if let Poll::Ready(Ok(read)) = caller.poll_body(cx, max) {
                return Poll::Ready(Ok(read));
            }
            if caller.came() > came {
                came = caller.came();
                let earned = Duration::from_secs(u64::try_from(came).unwrap_or(u64::MAX) / PACE);
                end.as_mut().reset((Instant::now() + patience).min(first + earned));
            }
            if end.as_mut().poll(cx).is_ready() {
                late.store(true, Ordering::Relaxed);
            }
            // Whoever waits for this sees why the caller left, and drops it.
            Poll::Pending
        }))
    }
}

/// Waits for `answer` for as long as the caller does, and until the body is `late`.
pub(crate) async fn wait<T>(
    caller: &dyn Caller,
    late: &AtomicBool,
    answer: impl Future<Output = T> + Send,
) -> Result<T, Left> {
    let mut answer = pin!(answer);
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Ok(answer)),
        Poll::Pending if late.load(Ordering::Relaxed) => Poll::Ready(Err(Left::Late)),
        Poll::Pending => caller.poll_left(cx).map_or(Poll::Pending, |left| Poll::Ready(Err(left))),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use tokio::time::{Interval, interval, timeout};

    use super::*;

    /// A body without an end, some bytes of which come each second.
    struct Trickle {
        each: usize,
        came: AtomicUsize,
        second: Mutex<Interval>,
    }

    impl Caller for Trickle {
        fn poll_body(&self, cx: &mut Context<'_>, _max: usize) -> Poll<Result<(Bytes, bool), Left>> {
            while self.second.lock().unwrap().poll_tick(cx).is_ready() {
                self.came.fetch_add(self.each, Ordering::Relaxed);
            }
            Poll::Pending
        }

        fn came(&self) -> usize {
            self.came.load(Ordering::Relaxed)
        }

        fn poll_left(&self, _cx: &mut Context<'_>) -> Option<Left> {
            None
        }

        fn was_read(&self) -> bool {
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_in_drops_is_not_waited_for_longer_than_one_that_does_not_come() {
        for (each, late_after) in [(0, Some(5)), (1, Some(5)), (512, Some(10)), (2048, None)] {
            let caller =
                Trickle { each, came: AtomicUsize::new(0), second: Mutex::new(interval(Duration::from_secs(1))) };
            let (late, began) = (AtomicBool::new(false), Instant::now());
            let mut body = Body { caller: &caller, patience: Duration::from_secs(5), late: &late };
            let waited = timeout(Duration::from_secs(60), wait(&caller, &late, body.read(u32::MAX))).await;
            let left = waited.ok().map(|left| (left.unwrap_err(), began.elapsed().as_secs()));
            assert_eq!(left, late_after.map(|after| (Left::Late, after)), "{each}");
        }
    }
}
