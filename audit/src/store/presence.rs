//! Which enforcers are connected, and how much they say is on its way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is there. In memory only: after a restart nobody is until they greet again.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    connected: Mutex<HashMap<String, Connected>>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Connected {
    streams: usize,
    /// How far the enforcer's spool reaches.
    pub(super) epoch: u64,
    pub(super) sequence: u64,
}

/// One stream of an enforcer; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Here {
    presence: Arc<Presence>,
    enforcer: String,
}

impl Presence {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> HashMap<String, Connected> {
        self.lock().clone()
    }

    /// An enforcer begins a stream.
    pub(crate) fn arrive(self: &Arc<Self>, enforcer: &str) -> Here {
        let mut connected = self.lock();
        let entry = connected.entry(enforcer.to_owned()).or_default();
        entry.streams = entry.streams.saturating_add(1);
        Here { presence: Arc::clone(self), enforcer: enforcer.to_owned() }
    }
}

impl Here {
    pub(crate) fn enforcer(&self) -> &str {
        &self.enforcer
    }

    /// The enforcer says how far its spool reaches.
    pub(crate) fn reaches(&self, epoch: u64, sequence: u64) {
        if let Some(entry) = self.presence.lock().get_mut(&self.enforcer) {
            (entry.epoch, entry.sequence) = (epoch, sequence).max((entry.epoch, entry.sequence));
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut connected = self.presence.lock();
        if let Some(entry) = connected.get_mut(&self.enforcer) {
            entry.streams = entry.streams.saturating_sub(1);
            if entry.streams == 0 {
                connected.remove(&self.enforcer);
            }
        }
    }
}
