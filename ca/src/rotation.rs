//! What happens next to the authorities, and when: decided from facts alone, so that what `ca status` announces is what the
//! authority will do.
//!
//! A root is in the bundle before it signs. It signs once everybody who could meet its leaves knows it: whoever follows the server
//! has acknowledged a bundle with it, and whoever does not follow has had to come back for a certificate (and so for the
//! bundle) since it was published. It leaves the bundle when its last leaf has ended.

use std::collections::BTreeMap;

use crate::journal::{Journal, Origin, Record, State};

/// An active authority is replaced, acknowledged or not, when this part of its life is left: later nothing would work at all.
const LAST_PART: u64 = 8;
/// A record may be written this much later than its leaf was signed; until then nobody knows the last leaf.
const RECORDS_SETTLE: u64 = 12;

/// What the decision needs to know. All times are unix seconds.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) now: u64,
    pub(crate) journal: &'a Journal,
    /// The dates of the active authority's path.
    pub(crate) active: (u64, u64),
    /// An own root is replaced when it has been active for so long.
    pub(crate) rotate_every: u64,
    /// Live followers that have not acknowledged the present bundle.
    pub(crate) waiting: usize,
    /// The end of the last leaf of those who do not follow and have not come back since the prepared root was published.
    pub(crate) unfollowed_until: Option<u64>,
    /// The end of the last leaf of each old authority.
    pub(crate) leaves_until: BTreeMap<String, u64>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a new authority and publish its root.
    Prepare,
    /// Let the prepared authority sign.
    Activate {
        /// Somebody may not know it yet.
        unacknowledged: bool,
    },
    /// Take an old authority out.
    Retire(String),
}

/// What comes next for one authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// In words, with what it waits for.
    pub what: String,
    /// When at the latest, unix seconds, if that is known.
    pub at: Option<u64>,
}

impl Facts<'_> {
    /// Everything that is due now.
    pub(crate) fn due(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        match self.journal.of(State::Prepared) {
            Some(prepared) => steps.extend(self.activation(prepared).ok()),
            None if self.prepare_at().is_some_and(|at| at <= self.now) => steps.push(Step::Prepare),
            None => {}
        }
        let retired = self.journal.old().filter(|old| self.retire_at(old) <= self.now);
        steps.extend(retired.map(|old| Step::Retire(old.id.clone())));
        steps
    }

    /// What comes next for `record`.
    pub(crate) fn next(&self, record: &Record) -> Next {
        match record.state {
            State::Prepared => match self.activation(record) {
                Ok(_) => Next { what: "signs from the next check on".to_owned(), at: Some(self.now) },
                Err(next) => next,
            },
            State::Active if self.journal.of(State::Prepared).is_some() => {
                Next { what: "gives way to the prepared one".to_owned(), at: None }
            }
            State::Active => match self.prepare_at() {
                Some(at) => Next { what: "a successor is prepared".to_owned(), at: Some(at) },
                None => {
                    Next { what: "replaced when other files stand in --cacerts".to_owned(), at: Some(self.active.1) }
                }
            },
            State::Old => Next { what: "retired after its last leaf".to_owned(), at: Some(self.retire_at(record)) },
        }
    }

    fn activation(&self, prepared: &Record) -> Result<Step, Next> {
        let unknown = self.waiting > 0 || self.unfollowed_until.is_some();
        let last = self.last_moment();
        let deadline = prepared.activate_by.map_or(last, |by| by.min(last));
        if deadline <= self.now {
            return Ok(Step::Activate { unacknowledged: unknown });
        }
        let wait = |what: String, at| Err(Next { what, at: Some(at) });
        if self.waiting > 0 {
            return wait(format!("signs once {} more agents have acknowledged its root", self.waiting), deadline);
        }
        if !prepared.automatic {
            return wait("signs when told to: palisade ca rotate --activate".to_owned(), deadline);
        }
        match self.unfollowed_until {
            Some(until) => wait("signs once clients that do not follow have renewed".to_owned(), until.min(deadline)),
            None => Ok(Step::Activate { unacknowledged: false }),
        }
    }

    /// When the active authority gives way whatever happens.
    fn last_moment(&self) -> u64 {
        let (begins, ends) = self.active;
        ends.saturating_sub(ends.saturating_sub(self.since_active().max(begins)) / LAST_PART)
    }

    fn since_active(&self) -> u64 {
        self.journal.of(State::Active).and_then(|active| active.activated_at).unwrap_or_default()
    }

    /// When a successor is made; `None` if that is the operator's business.
    fn prepare_at(&self) -> Option<u64> {
        let active = self.journal.of(State::Active)?;
        (active.origin == Origin::Own).then(|| self.since_active().saturating_add(self.rotate_every))
    }

    /// When an old authority goes: its last leaf has ended, and no record of one can be on its way.
    pub(crate) fn retire_at(&self, old: &Record) -> u64 {
        let settled = old.replaced_at.unwrap_or_default().saturating_add(RECORDS_SETTLE);
        let last = self.leaves_until.get(&old.id).copied().unwrap_or_default();
        settled.max(last.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    fn record(id: &str, state: State) -> Record {
        Record {
            id: id.to_owned(),
            state,
            origin: Origin::Own,
            roots: vec![format!("root of {id}")],
            chain: Vec::new(),
            prepared_at: NOW,
            activated_at: (state != State::Prepared).then_some(NOW),
            replaced_at: (state == State::Old).then_some(NOW),
            activate_by: None,
            automatic: true,
            tainted: false,
        }
    }

    fn journal(states: &[State]) -> Journal {
        let name = |index: usize| ["a", "b", "c"].into_iter().nth(index).unwrap();
        let authorities = states.iter().enumerate().map(|(index, state)| record(name(index), *state)).collect();
        Journal { trust_domain: "cluster.local".to_owned(), authorities }
    }

    fn facts(journal: &Journal, after: u64) -> Facts<'_> {
        Facts {
            now: NOW + after,
            journal,
            active: (NOW - 3_600, NOW + 80 * DAY),
            rotate_every: 60 * DAY,
            waiting: 0,
            unfollowed_until: None,
            leaves_until: BTreeMap::new(),
        }
    }

    #[test]
    fn a_successor_is_prepared_in_time_and_only_one() {
        let one = journal(&[State::Active]);
        assert_eq!(facts(&one, 60 * DAY - 1).due(), []);
        assert_eq!(facts(&one, 60 * DAY).due(), [Step::Prepare]);
        let mut plugged = one.clone();
        plugged.change("a", |record| record.origin = Origin::Cacerts);
        assert_eq!(facts(&plugged, 70 * DAY).due(), [], "the operator's files are the operator's");
        let two = journal(&[State::Active, State::Prepared]);
        assert_eq!(Facts { waiting: 1, ..facts(&two, 60 * DAY) }.due(), []);
    }

    /// Trap 13: a root that signs before every validator has it.
    #[test]
    fn trap_13_it_signs_once_everybody_knows_it_or_the_deadline_has_passed() {
        let mut both = journal(&[State::Active, State::Prepared]);
        let activate = |unacknowledged| [Step::Activate { unacknowledged }];
        assert_eq!(facts(&both, 1).due(), activate(false));
        assert_eq!(Facts { waiting: 1, ..facts(&both, 1) }.due(), []);
        assert_eq!(Facts { unfollowed_until: Some(NOW + 60), ..facts(&both, 1) }.due(), []);
        let last = Facts { waiting: 1, ..facts(&both, 70 * DAY) };
        assert_eq!(last.due(), activate(true), "the active one is about to end");
        both.change("b", |record| record.activate_by = Some(NOW + 9));
        assert_eq!(Facts { waiting: 1, ..facts(&both, 8) }.due(), []);
        assert_eq!(Facts { waiting: 1, ..facts(&both, 9) }.due(), activate(true));
        both.change("b", |record| (record.activate_by, record.automatic) = (None, false));
        assert_eq!(facts(&both, 9).due(), [], "the operator wants to say when");
    }

    #[test]
    fn an_old_one_goes_after_its_last_leaf() {
        let all = journal(&[State::Old, State::Active]);
        assert_eq!(facts(&all, RECORDS_SETTLE - 1).due(), []);
        assert_eq!(facts(&all, RECORDS_SETTLE).due(), [Step::Retire("a".to_owned())]);
        let leaves_until = BTreeMap::from([("a".to_owned(), NOW + 3_600)]);
        let with = |after| Facts { leaves_until: leaves_until.clone(), ..facts(&all, after) }.due();
        assert_eq!(with(3_600), []);
        assert_eq!(with(3_601), [Step::Retire("a".to_owned())]);
    }

    #[test]
    fn what_is_announced_is_what_is_done() {
        let all = journal(&[State::Old, State::Active]);
        for after in [0, RECORDS_SETTLE, 60 * DAY] {
            let facts = facts(&all, after);
            let due = facts.due();
            for record in &all.authorities {
                let at = facts.next(record).at.unwrap();
                let now = due.iter().any(|step| match record.state {
                    State::Old => *step == Step::Retire(record.id.clone()),
                    _ => *step == Step::Prepare,
                });
                assert_eq!(now, at <= facts.now, "{record:?}");
            }
        }
    }
}
