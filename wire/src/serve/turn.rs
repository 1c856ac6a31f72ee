//! Newcomers in turn: of thousands that connect at once, as agents do that restart together, only so many are taken on at a time,
//! in their order. So the memory is that of few, and who was begun is served before the next is begun.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long a newcomer keeps its place at most: many times what it takes where both sides answer.
const PLACE: Duration = Duration::from_millis(100);

/// A place among those that are taken on; nobody's where none is needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Place(Option<Arc<Mutex<Option<OwnedSemaphorePermit>>>>);

impl Place {
    /// To the next; again, or without a place, it does nothing.
    pub(super) fn leave(&self) {
        if let Some(place) = &self.0 {
            drop(place.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// Begins `work` when there is a place, which that leaves when it likes, and at the latest after a while, done or not: clients that
/// say nothing hold nobody up. Who waits at `shutdown` is not begun.
pub(super) async fn in_turn<F: Future<Output = ()> + Unpin>(
    places: &Arc<Semaphore>,
    shutdown: &CancellationToken,
    work: impl FnOnce(Place) -> F,
) {
    let Some(permit) = shutdown.run_until_cancelled(Arc::clone(places).acquire_owned()).await else { return };
    // Nobody closes it, so there is one.
    let place = Place(Some(Arc::new(Mutex::new(permit.ok()))));
    let mut work = work(place.clone());
    let done = tokio::time::timeout(PLACE, &mut work).await;
    place.leave();
    if done.is_err() {
        work.await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    /// What somebody waits behind others like this one.
    async fn behind<F: Future<Output = ()> + Unpin>(other: impl Fn(Place) -> F) -> Duration {
        let (places, shutdown, started) = (Arc::new(Semaphore::new(2)), CancellationToken::new(), Instant::now());
        let one = || in_turn(&places, &shutdown, &other);
        let last = async {
            in_turn(&places, &shutdown, |_| ready(())).await;
            started.elapsed()
        };
        let waited = tokio::select! {
            biased;
            _ = async { tokio::join!(one(), one(), one(), one()) } => Duration::MAX,
            waited = last => waited,
        };
        assert_eq!(places.available_permits(), 2);
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_leaves_his_place_to_the_next() {
        assert_eq!(behind(|_| pending::<()>()).await, PLACE * 2, "behind two rounds of two");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_served_leaves_his_place_and_stays() {
        let served = |place: Place| {
            Box::pin(async move {
                tokio::time::sleep(PLACE / 10).await;
                place.leave();
                pending::<()>().await;
            })
        };
        assert_eq!(behind(served).await, PLACE / 10 * 2, "behind two rounds of two");
    }
}
