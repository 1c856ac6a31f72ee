//! The step that counts, taken by hand: another authority signs.

use std::time::Duration;

use super::RotateError;
use crate::authority::{Authority, signed};
use crate::journal::State;

/// An agent that finds the server away tries again every 12 s at most (`palisade-sds`); a try that hangs ends after 30 s.
const COMING_BACK: u64 = 60;

impl Authority {
    /// Lets the prepared authority sign, if everybody who follows has acknowledged its root or the deadline (`activate_after`
    /// from now, or the one set before) has passed. In the minute after a start, whoever may be on the way back is waited for, too.
    ///
    /// # Errors
    /// [`RotateError`].
    pub async fn activate(&self, activate_after: Option<Duration>) -> Result<(), RotateError> {
        let mut hands = self.hands.lock().await;
        let mut journal = self.realm().journal.clone();
        let prepared = journal.of(State::Prepared).ok_or(RotateError::NothingPrepared)?.id.clone();
        if let Some(after) = activate_after {
            let deadline = self.deadline(Some(after));
            journal.change(&prepared, |record| record.activate_by = deadline);
            self.apply(&mut hands, journal.clone()).await?;
        }
        let overdue =
            journal.of(State::Prepared).and_then(|record| record.activate_by).is_some_and(|by| by <= self.now());
        let waiting = self.followers.waiting(&self.realm.load().digest);
        if !overdue {
            if !waiting.is_empty() {
                return Err(RotateError::NotAcknowledged(waiting));
            }
            self.all_are_back().await?;
        }
        self.switch(&mut hands, journal, !waiting.is_empty()).await?;
        Ok(())
    }

    /// Nobody is waited for whom this process has never seen. So, for a moment after its start, whoever holds a certificate that is
    /// older than the prepared root counts as one who follows and is on the way back.
    async fn all_are_back(&self) -> Result<(), RotateError> {
        let (realm, now) = (self.realm(), self.now());
        // A clock that was set back says nothing of how long it has been.
        let left = now.checked_sub(self.opened_at).map_or(0, |since| COMING_BACK.saturating_sub(since));
        let Some(prepared) = realm.journal.of(State::Prepared).filter(|_| left > 0) else { return Ok(()) };
        let dates = (signed(now), signed(prepared.prepared_at));
        let until = self.store.unfollowed_until(&realm.authority, dates, &self.followers.seen()).await?;
        let left = until.map(|until| left.min(u64::try_from(until).unwrap_or_default().saturating_sub(now)));
        left.map_or(Ok(()), |left| Err(RotateError::ComingBack(left)))
    }
}
