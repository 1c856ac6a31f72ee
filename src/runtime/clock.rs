//! The one place that reads the wall clock for the services.

use palisade_identity::Clock;
use rustls::pki_types::UnixTime;

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}
