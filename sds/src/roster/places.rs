//! How far the subscribers are: Envoys, and files. A root may sign only when those who check its leaves have it, so the agent
//! acknowledges a bundle when they have, not when it has it itself.
//!
//! Each change opens a new place. A subscriber moves on to the newest when it has answered to everything up to it; the changes
//! before are known to everybody when nobody is left at an older place.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Where a subscriber stands; nothing else is done with it than to hold and to drop it.
pub(crate) struct Place(#[expect(dead_code, reason = "its end is what is looked for")] watch::Receiver<()>);

#[derive(Default)]
pub(crate) struct Places(Mutex<Table>);

#[derive(Default)]
struct Table {
    newest: Arc<watch::Sender<()>>,
    /// Places at which somebody may still be.
    older: Vec<Arc<watch::Sender<()>>>,
}

impl Places {
    /// The newest. Whoever looks at the state after this call sees every change before the place was opened.
    pub(crate) fn newest(&self) -> Place {
        Place(self.0.lock().unwrap_or_else(PoisonError::into_inner).newest.subscribe())
    }

    /// The state has changed.
    pub(crate) fn open(&self) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.older.retain(|place| !place.is_closed());
        let left = std::mem::take(&mut table.newest);
        table.older.push(left);
    }

    /// Waits until all who were there before the last change have moved on, or gone.
    pub(crate) async fn all_moved_on(&self) {
        let older = self.0.lock().unwrap_or_else(PoisonError::into_inner).older.clone();
        for place in older {
            place.closed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_change_is_known_when_the_last_one_has_moved_on_or_gone() {
        let places = Places::default();
        let known = || places.all_moved_on().now_or_never().is_some();
        let (mut slow, leaving) = (places.newest(), places.newest());
        assert!(known(), "nothing has changed yet");
        places.open();
        let newcomer = places.newest();
        assert!(!known());
        drop(leaving);
        assert!(!known());
        places.open();
        slow = {
            drop(slow);
            places.newest()
        };
        assert!(!known(), "the newcomer does not know the second change");
        drop(newcomer);
        assert!(known());
        drop(slow);
    }
}
