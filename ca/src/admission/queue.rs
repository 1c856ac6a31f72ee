//! Turns: a bounded number at once, and among those that wait each caller's in rotation.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

#[derive(Clone, Debug)]
pub(super) struct FairQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    slots: usize,
    waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
    /// Callers with somebody waiting, the next one first.
    rotation: VecDeque<String>,
    callers: HashMap<String, VecDeque<oneshot::Sender<()>>>,
    /// How many callers have so many waiting.
    lengths: BTreeMap<usize, usize>,
}

/// Permission to work; the next one's turn comes when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Shared>);

/// A place in the queue. Given up with the future that waits in it.
struct Place {
    shared: Arc<Shared>,
    called: oneshot::Receiver<()>,
    used: bool,
}

impl FairQueue {
    /// `slots` at once, `waiting` in all.
    pub(super) fn new(slots: usize, waiting: usize) -> Self {
        Self(Arc::new(Shared { slots, waiting, state: Mutex::default() }))
    }

    /// The caller's turn, or `None` if too many wait and it is among those with most.
    pub(super) async fn turn(&self, caller: String) -> Option<Turn> {
        let called = {
            let mut state = self.0.lock();
            if state.running < self.0.slots {
                state.running += 1;
                return Some(Turn(Arc::clone(&self.0)));
            }
            if state.waiting >= self.0.waiting && !state.make_room(&caller) {
                return None;
            }
            state.enqueue(caller)
        };
        let mut place = Place { shared: Arc::clone(&self.0), called, used: false };
        let called = (&mut place.called).await.is_ok();
        place.used = true;
        called.then(|| Turn(Arc::clone(&self.0)))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) {
        let mut state = self.lock();
        // Somebody who has gone away leaves the turn to the next.
        while let Some(next) = state.dequeue() {
            if next.send(()).is_ok() {
                return;
            }
        }
        state.running = state.running.saturating_sub(1);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.called.close();
        // Called in the moment in which nobody waited any more.
        if !self.used && self.called.try_recv().is_ok() {
            self.shared.release();
        }
    }
}

impl State {
    fn enqueue(&mut self, caller: String) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let line = self.callers.entry(caller.clone()).or_default();
        let before = line.len();
        line.push_back(sender);
        if before == 0 {
            self.rotation.push_back(caller);
        }
        self.waiting += 1;
        self.count(before, before + 1);
        receiver
    }

    fn dequeue(&mut self) -> Option<oneshot::Sender<()>> {
        let caller = self.rotation.pop_front()?;
        let line = self.callers.get_mut(&caller)?;
        let (before, next) = (line.len(), line.pop_front());
        if line.is_empty() {
            self.callers.remove(&caller);
        } else {
            self.rotation.push_back(caller);
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.count(before, before.saturating_sub(1));
        next
    }

    /// Sends away the newest of the caller with most, unless that is this caller itself.
    fn make_room(&mut self, caller: &str) -> bool {
        let own = self.callers.get(caller).map_or(0, VecDeque::len);
        let most = self.lengths.last_key_value().map_or(0, |(length, _)| *length);
        if most <= own + 1 {
            return false;
        }
        let Some((_, line)) = self.callers.iter_mut().find(|(_, line)| line.len() == most) else { return false };
        // Its end of the channel says so.
        drop(line.pop_back());
        self.waiting = self.waiting.saturating_sub(1);
        self.count(most, most - 1);
        true
    }

    fn count(&mut self, before: usize, after: usize) {
        if let Some(callers) = self.lengths.get_mut(&before) {
            *callers -= 1;
            if *callers == 0 {
                self.lengths.remove(&before);
            }
        }
        if after > 0 {
            *self.lengths.entry(after).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Option<Turn>> + Send>>;

    fn wait(queue: &FairQueue, caller: &str) -> Waiting {
        let (queue, caller) = (queue.clone(), caller.to_owned());
        let mut waiting: Waiting = Box::pin(async move { queue.turn(caller).await });
        assert!(poll(&mut waiting).is_pending());
        waiting
    }

    fn poll(waiting: &mut Waiting) -> Poll<Option<Turn>> {
        waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn each_caller_s_turn_comes_once_a_round() {
        let queue = FairQueue::new(1, 1_000);
        let mut turn = queue.turn("x".into()).await;
        let mut waiting: Vec<(&str, Waiting)> = Vec::new();
        for _ in 0..100 {
            waiting.push(("greedy", wait(&queue, "greedy")));
        }
        for caller in ["a", "b", "a"] {
            waiting.push((caller, wait(&queue, caller)));
        }
        let mut served = Vec::new();
        while !waiting.is_empty() && served.len() < 7 {
            drop(turn.take());
            let next = waiting.iter_mut().position(|(_, future)| match poll(future) {
                Poll::Ready(next) => {
                    turn = next;
                    true
                }
                Poll::Pending => false,
            });
            served.push(waiting.remove(next.unwrap()).0);
        }
        assert_eq!(served, ["greedy", "a", "b", "greedy", "a", "greedy", "greedy"]);
    }

    #[tokio::test]
    async fn a_full_queue_sends_away_who_has_most() {
        let queue = FairQueue::new(1, 10);
        let turn = queue.turn("x".into()).await;
        let mut greedy: Vec<_> = (0..10).map(|_| wait(&queue, "greedy")).collect();
        assert!(queue.turn("greedy".into()).await.is_none(), "its own request goes");
        let mut modest = wait(&queue, "modest");
        let gone = greedy.iter_mut().filter_map(|waiting| match poll(waiting) {
            Poll::Ready(turn) => Some(turn.is_none()),
            Poll::Pending => None,
        });
        assert_eq!(gone.collect::<Vec<_>>(), [true], "the newest of the greedy one");
        drop(turn);
        let next = poll(greedy.first_mut().unwrap());
        assert!(next.is_ready() && poll(&mut modest).is_pending(), "the greedy one was first");
        drop(next);
        assert!(poll(&mut modest).is_ready());
    }

    #[tokio::test]
    async fn who_goes_away_keeps_no_turn_and_no_place() {
        let queue = FairQueue::new(1, 10);
        let turn = queue.turn("x".into()).await.unwrap();
        let (first, second, mut third) = (wait(&queue, "a"), wait(&queue, "b"), wait(&queue, "c"));
        drop(first);
        drop(turn);
        // Called, and gone before it noticed.
        drop(second);
        let Poll::Ready(Some(turn)) = poll(&mut third) else { unreachable!("the third is next") };
        drop(turn);
        let state = queue.0.lock();
        assert_eq!((state.running, state.waiting, state.callers.len(), state.lengths.len()), (0, 0, 0, 0));
    }
}
