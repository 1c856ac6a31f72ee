//! Who has said that it cannot use the bundle it was given, and so still has an older one. A root that signs then would be refused by
//! it, so the server is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Reasons, by number.
pub(crate) type Reasons = BTreeMap<u64, String>;

#[derive(Clone, Default)]
pub(crate) struct Rejections(Arc<watch::Sender<Reasons>>);

/// One subscriber's no, until it is dropped.
pub(crate) struct Rejection {
    of: Rejections,
    number: u64,
    reason: String,
}

impl Rejections {
    pub(crate) fn add(&self, reason: &str) -> Rejection {
        let mut number = 0;
        self.0.send_modify(|reasons| {
            number = reasons.last_key_value().map_or(0, |(last, _)| last + 1);
            reasons.insert(number, reason.to_owned());
        });
        Rejection { of: self.clone(), number, reason: reason.to_owned() }
    }

    /// All there are, and wakes at each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Reasons> {
        self.0.subscribe()
    }
}

impl Rejection {
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

impl Drop for Rejection {
    fn drop(&mut self) {
        self.of.0.send_modify(|reasons| drop(reasons.remove(&self.number)));
    }
}
