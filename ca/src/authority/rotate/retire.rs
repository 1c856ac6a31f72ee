//! The last step, taken by hand: old authorities leave the bundle.

use super::RotateError;
use crate::authority::Authority;
use crate::journal::State;

impl Authority {
    /// Takes old authorities out of the bundle: the one named, or all whose leaves have ended. A tainted one goes although
    /// leaves of it live.
    ///
    /// # Errors
    /// [`RotateError`], if there are some and all of them are in use, or the one named.
    pub async fn retire(&self, id: Option<&str>) -> Result<(), RotateError> {
        let mut hands = self.hands.lock().await;
        let realm = self.realm();
        let facts = self.facts(&realm).await?;
        let mut journal = realm.journal.clone();
        if let Some(id) = id
            && journal.get(id).ok_or_else(|| RotateError::Unknown(id.to_owned()))?.state != State::Old
        {
            return Err(RotateError::NotOld(id.to_owned()));
        }
        let old = realm.journal.old().filter(|old| id.is_none_or(|id| id == old.id));
        let (retired, in_use): (Vec<_>, Vec<_>) =
            old.partition(|old| old.tainted || facts.retire_at(old) <= self.now());
        if let (true, Some(first)) = (retired.is_empty(), in_use.first()) {
            return Err(RotateError::InUse { id: first.id.clone(), until: facts.retire_at(first) });
        }
        for old in &retired {
            journal.retire(&old.id);
        }
        self.apply(&mut hands, journal).await?;
        for old in &retired {
            tracing::info!(authority = old.id, "authority retired by the operator");
        }
        Ok(())
    }
}
