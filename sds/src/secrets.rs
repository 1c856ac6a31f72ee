//! What each subscriber may have: the identities of its process, validated, and encoded once for everybody who has them.
//!
//! Envoy acknowledges an expired certificate, a foreign chain and a bundle without any authority, and then fails
//! every handshake. So nothing leaves this module that was not checked, and what fails the check is withheld: the
//! subscriber keeps what it has.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use palisade_identity::{Clock, Identity, SvidSource, X509Svid, error_chain};
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use crate::attest::Evidence;
use crate::roster::{Entry, Place, Rejection, Roster, State};
pub(crate) use encoded::Resource;
pub(crate) use trust::Trust;
pub(crate) use view::{Served, Slot, Standing, View};

pub(crate) mod encoded;
mod trust;
pub(crate) mod view;

/// The first identity of the caller.
pub(crate) const CERTIFICATE_NAME: &str = "default";
/// The trust bundle of the agent's trust domain.
pub(crate) const ROOTS_NAME: &str = "ROOTCA";
/// The bundles of all trust domains that the caller may have, each apart.
pub(crate) const ALL_NAME: &str = "ALL";

/// What decides about a caller; equal callers share everything that is made for them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Who {
    pub(crate) uid: u32,
    pub(crate) selectors: BTreeSet<String>,
}

/// Hands out what callers may have to any number of streams.
///
/// Cheap to ask: validation and encoding happen once per content, the dates are looked at each time.
#[derive(Clone)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn SvidSource>,
    clock: Arc<dyn Clock>,
    roster: Arc<Roster>,
    /// Users whose processes get the agent's own identity while there are no entries.
    uids: BTreeSet<u32>,
    cache: Mutex<Cache>,
}

/// What was made from one state; parts of it are carried over to the next.
#[derive(Default)]
struct Cache {
    identity: Option<Arc<Identity>>,
    state: Arc<State>,
    callers: HashSet<Arc<Who>>,
    views: HashMap<Arc<Who>, Arc<View>>,
    /// By entry, and the agent's own under the empty name.
    served: HashMap<String, Arc<Served>>,
    trust: HashMap<BTreeSet<String>, Arc<Trust>>,
}

impl Feed {
    /// `uids` get the agent's own identity while there are no entries; the agent's own effective user if there are none.
    pub(crate) fn new(source: Arc<dyn SvidSource>, roster: Arc<Roster>, clock: Arc<dyn Clock>, uids: &[u32]) -> Self {
        let wake = Arc::clone(&roster);
        source.on_change(Box::new(move || wake.wake()));
        let own = || rustix::process::geteuid().as_raw();
        let uids = if uids.is_empty() { BTreeSet::from([own()]) } else { uids.iter().copied().collect() };
        Self { shared: Arc::new(Shared { source, clock, roster, uids, cache: Mutex::default() }) }
    }

    /// Wakes at each change after this call.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.shared.roster.subscribe()
    }

    /// See [`Roster::place`].
    pub(crate) fn place(&self) -> Place {
        self.shared.roster.place()
    }

    /// See [`Roster::reject`].
    pub(crate) fn reject(&self, reason: &str) -> Rejection {
        self.shared.roster.reject(reason)
    }

    /// The clock that dates are judged by.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// The agent's own identity and everything else, as they are now.
    pub(crate) fn parts(&self) -> (Option<Arc<Identity>>, Arc<State>) {
        (self.shared.source.current(), self.shared.roster.now())
    }

    /// The caller, as all equal callers are.
    pub(crate) fn caller(&self, evidence: &Evidence) -> Arc<Who> {
        let who = Who { uid: evidence.caller.uid, selectors: evidence.selectors.clone() };
        let mut cache = self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cache.callers.get(&who) {
            return Arc::clone(known);
        }
        let who = Arc::new(who);
        cache.callers.insert(Arc::clone(&who));
        who
    }

    /// What a caller may have now.
    pub(crate) fn view(&self, who: &Arc<Who>) -> Arc<View> {
        let shared = &self.shared;
        let mut cache = shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.renew(shared.source.current(), shared.roster.now());
        let now = shared.clock.now();
        if let Some(view) = cache.views.get(who).filter(|view| view.is_good_at(now)) {
            return Arc::clone(view);
        }
        let view = Arc::new(shared.make(&mut cache, who, now));
        cache.views.insert(Arc::clone(who), Arc::clone(&view));
        view
    }
}

impl Cache {
    /// Forgets what was made from another state; what did not change keeps its encoded forms.
    fn renew(&mut self, identity: Option<Arc<Identity>>, state: Arc<State>) {
        let same_identity = match (&self.identity, &identity) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if same_identity && Arc::ptr_eq(&self.state, &state) {
            return;
        }
        self.views.clear();
        self.callers.retain(|who| Arc::strong_count(who) > 1);
        let same_bundles = same_identity
            || matches!((&self.identity, &identity), (Some(old), Some(new)) if old.bundles == new.bundles);
        if !same_bundles || self.state.jwks != state.jwks {
            self.trust.clear();
        }
        self.served.retain(|id, _| id.is_empty() || state.svids.contains_key(id));
        (self.identity, self.state) = (identity, state);
    }

    /// The encoded forms of one certificate.
    fn served(&mut self, id: &str, svid: &Arc<X509Svid>) -> Arc<Served> {
        if let Some(known) = self.served.get(id).filter(|known| Arc::ptr_eq(&known.svid, svid)) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(Served::new(Arc::clone(svid)));
        self.served.insert(id.to_owned(), Arc::clone(&fresh));
        fresh
    }
}

impl Shared {
    fn make(&self, cache: &mut Cache, who: &Who, now: UnixTime) -> View {
        let state = Arc::clone(&cache.state);
        let Some(entries) = &state.entries else { return View::nothing(Standing::Unknown) };
        let identity = cache.identity.clone();
        // While there are entries they alone decide: the agent's own identity may ask for the certificates of all of them.
        let slots = if entries.is_empty() {
            if !self.uids.contains(&who.uid) {
                return View::nothing(Standing::Nobody);
            }
            vec![Slot { entry: None, served: self.own(cache, identity.as_deref(), now) }]
        } else {
            let matched = entries.of(&who.selectors);
            let slot = |entry: &Arc<Entry>| Slot {
                served: self.of_entry(cache, identity.as_deref(), entry, now),
                entry: Some(Arc::clone(entry)),
            };
            matched.into_iter().map(slot).collect()
        };
        if slots.is_empty() {
            return View::nothing(Standing::Nobody);
        }
        let trust = identity.as_deref().and_then(|own| self.trust(cache, own, &state, &slots));
        View::new(slots, trust)
    }

    fn own(&self, cache: &mut Cache, own: Option<&Identity>, now: UnixTime) -> Result<Arc<Served>, Arc<str>> {
        let own = own.ok_or("no identity yet")?;
        own.svid.usable(&own.bundles, now).map_err(|reason| Arc::<str>::from(error_chain(&reason)))?;
        Ok(cache.served("", &own.svid))
    }

    fn of_entry(
        &self,
        cache: &mut Cache,
        own: Option<&Identity>,
        entry: &Entry,
        now: UnixTime,
    ) -> Result<Arc<Served>, Arc<str>> {
        let own = own.ok_or("no identity yet")?;
        let held = cache.state.svids.get(&entry.id).cloned();
        let held = held.ok_or(view::BEING_MADE)?;
        held.svid.usable(&own.bundles, now).map_err(|reason| Arc::<str>::from(error_chain(&reason)))?;
        Ok(cache.served(&entry.id, &held.svid))
    }

    /// The agent's own trust domain, and those that the entries federate with; without entries all there are.
    fn trust(&self, cache: &mut Cache, own: &Identity, state: &State, slots: &[Slot]) -> Option<Arc<Trust>> {
        let home = own.svid.id().trust_domain_name();
        let wanted = |name: &str| {
            let federated = |slot: &Slot| slot.entry.as_ref().is_none_or(|entry| entry.federates_with.contains(name));
            name == home || slots.iter().any(federated)
        };
        let bundles: Vec<_> = own.bundles.iter().filter(|bundle| wanted(bundle.trust_domain().as_str())).collect();
        let names: BTreeSet<String> = bundles.iter().map(|bundle| bundle.trust_domain().as_str().to_owned()).collect();
        if !names.contains(home) {
            return None;
        }
        let make = || Arc::new(Trust::new(home, bundles.into_iter().cloned().collect(), &state.jwks));
        Some(Arc::clone(cache.trust.entry(names).or_insert_with(make)))
    }
}

#[cfg(test)]
mod tests;
