//! Changing authorities: by the clock, by the operator, and by files that were swapped. Each change is one write of the journal;
//! what is in memory follows it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::hands::{Hands, UNSEEN, key_names};
use super::{Authority, OpenError, Realm, realm_of, server, signed};
use crate::cacerts::{CacertsError, Files};
use crate::custody::Custody as _;
use crate::journal::{Journal, Origin, State};
use crate::rotation::{Facts, Step};
use crate::signer::Found;
use crate::store::StoreError;

mod activate;
mod retire;

/// Dates are compared with the wall clock this often: timers alone are wrong after a suspend.
const TICK: Duration = Duration::from_secs(1);

/// Why a step of a rotation is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// Nothing to activate.
    #[error("no authority is prepared: run `palisade ca rotate --prepare` first")]
    NothingPrepared,
    /// Somebody would refuse its leaves.
    #[error("{} have not acknowledged the new root: wait, or set a deadline with --activate-after", .0.join(", "))]
    NotAcknowledged(Vec<String>),
    /// Somebody may follow and has not had the time to come back.
    #[error(
        "the server has just started, and agents that hold certificates do not follow yet: ask again in {0} s at most, or give \
         --activate-after 0s to go on without them"
    )]
    ComingBack(u64),
    /// The operator's own PKI makes authorities.
    #[error(
        "the active authority is plugged in: put the next certificate into the --cacerts directory, and it is prepared"
    )]
    Plugged,
    /// No such authority.
    #[error("there is no authority `{0}`: `palisade ca status` lists them")]
    Unknown(String),
    /// It signs, or is about to.
    #[error("authority {0} is not old: activate another one first (`palisade ca rotate --prepare`, then `--activate`)")]
    NotOld(String),
    /// Certificates that it has signed are in use.
    #[error("certificates of authority {id} are in use until {}: wait, or taint it first, so that they are replaced", humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(*.until)))]
    InUse {
        /// Which authority.
        id: String,
        /// The end of its last leaf, unix seconds.
        until: u64,
    },
    /// It could not be carried out.
    #[error("the authorities cannot be changed")]
    Open(#[from] OpenError),
    /// The records.
    #[error("the issuance records cannot be read")]
    Store(#[from] StoreError),
}

impl Authority {
    /// Rotates, renews and retires in time, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let tick = || async {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.hurry.notified() => {}
            }
        };
        while shutdown.run_until_cancelled(tick()).await.is_some() {
            self.maintain().await;
        }
    }

    /// Does what is due by the clock. [`run`](Self::run) calls it every second; a failure is logged, counted and tried again,
    /// and what is in use stays in use.
    pub async fn maintain(&self) {
        if self.store.failing() {
            // The store itself says and counts what is wrong with it.
            let _ = self.store.probe().await;
        }
        let mut hands = self.hands.lock().await;
        let adopted = self.adopt_files(&mut hands).await;
        self.report("cacerts", adopted);
        let renewed = self.renew_intermediates(&mut hands).await;
        self.report("intermediate", renewed);
        let turned = self.turn_ring(&mut hands);
        self.report("keys for tokens", turned);
        let stepped = self.step(&mut hands).await;
        self.report("rotation", stepped);
        let denied = self.deny(&hands).await;
        self.report("revocations", denied);
        self.refresh_server(&hands).await;
        self.show_dates();
        let able = self.able();
        self.ready.send_if_modified(|ready| std::mem::replace(ready, able) != able);
    }

    /// Whether a certificate could be issued now, by trying: the key signs, its certificate is valid, records are written, and
    /// clients that have our bundle would accept the certificate that we serve with.
    pub(super) fn able(&self) -> bool {
        let (realm, serving) = (self.realm(), self.server_identity());
        let served = serving.svid.usable(&realm.bundles, self.clock.now());
        if let Err(error) = &served {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "the server's own certificate would be refused");
        }
        let signs = realm.signer.valid(self.now()) && realm.signer.key().sign(b"probe").is_ok();
        signs && served.is_ok() && !self.store.failing()
    }

    fn report<E: std::error::Error + 'static>(&self, what: &'static str, result: Result<(), E>) {
        if let Err(error) = result {
            self.metrics.maintenance_failed();
            let error: &dyn std::error::Error = &error;
            tracing::error!(what, error, "maintenance failed, what is in use stays in use");
        }
    }

    /// Makes a new authority and publishes its root; if one is prepared already, it stays. With `automatic` everything else
    /// follows by itself; `activate_after` is the operator's deadline from now.
    ///
    /// # Errors
    /// [`RotateError`].
    pub async fn prepare(&self, automatic: bool, activate_after: Option<Duration>) -> Result<(), RotateError> {
        let mut hands = self.hands.lock().await;
        let mut journal = self.realm().journal.clone();
        if journal.of(State::Prepared).is_none() {
            if journal.of(State::Active).is_some_and(|active| active.origin == Origin::Cacerts) {
                return Err(RotateError::Plugged);
            }
            self.add(&mut hands, &mut journal)?;
        }
        let id = journal.of(State::Prepared).map(|record| record.id.clone()).unwrap_or_default();
        let deadline = self.deadline(activate_after.or(self.config.activate_after));
        journal.change(&id, |record| (record.automatic, record.activate_by) = (automatic, deadline));
        self.apply(&mut hands, journal).await?;
        drop(hands);
        self.hurry();
        Ok(())
    }

    /// Marks an old authority as not to be relied on: agents replace its leaves at once.
    ///
    /// # Errors
    /// [`RotateError`] if there is none of that identifier, or it is not old.
    pub async fn taint(&self, id: &str) -> Result<(), RotateError> {
        let mut hands = self.hands.lock().await;
        let mut journal = self.realm().journal.clone();
        let record = journal.get(id).ok_or_else(|| RotateError::Unknown(id.to_owned()))?;
        if record.state != State::Old {
            return Err(RotateError::NotOld(id.to_owned()));
        }
        journal.change(id, |record| record.tainted = true);
        self.apply(&mut hands, journal).await?;
        tracing::warn!(authority = id, "authority tainted: its leaves are replaced");
        Ok(())
    }

    fn deadline(&self, after: Option<Duration>) -> Option<u64> {
        after.map(|after| self.now().saturating_add(after.as_secs()))
    }

    fn add(&self, hands: &mut Hands, journal: &mut Journal) -> Result<(), OpenError> {
        let (record, member) = hands.make(&self.config, self.now())?;
        hands.members.insert(record.id.clone(), member);
        journal.prepare(record);
        Ok(())
    }

    /// What is known at this moment.
    pub(super) async fn facts<'a>(&self, realm: &'a Realm) -> Result<Facts<'a>, StoreError> {
        let now = self.now();
        let waiting = self.followers.waiting(&realm.digest).len();
        let mut facts = Facts {
            now,
            journal: &realm.journal,
            active: (realm.signer.not_before, realm.ends()),
            rotate_every: self.config.rotate_every().as_secs(),
            waiting,
            unfollowed_until: None,
            leaves_until: std::collections::BTreeMap::new(),
        };
        for old in realm.journal.old() {
            let until = self.store.leaves_until(&old.id).await?;
            facts.leaves_until.insert(old.id.clone(), until.and_then(|until| u64::try_from(until).ok()).unwrap_or(0));
        }
        if let Some(prepared) = realm.journal.of(State::Prepared).filter(|_| waiting == 0) {
            let (followers, dates) = (self.followers.ids(), (signed(now), signed(prepared.prepared_at)));
            let until = self.store.unfollowed_until(&realm.authority, dates, &followers).await?;
            facts.unfollowed_until = until.and_then(|until| u64::try_from(until).ok());
        }
        Ok(facts)
    }

    /// Takes every step that is due.
    async fn step(&self, hands: &mut Hands) -> Result<(), RotateError> {
        let realm = self.realm();
        let steps = self.facts(&realm).await?.due();
        for step in steps {
            let mut journal = self.realm().journal.clone();
            match step {
                Step::Prepare => {
                    self.add(hands, &mut journal)?;
                    let id = journal.of(State::Prepared).map(|record| record.id.clone()).unwrap_or_default();
                    let deadline = self.deadline(self.config.activate_after);
                    journal.change(&id, |record| record.activate_by = deadline);
                    self.apply(hands, journal).await?;
                }
                Step::Activate { unacknowledged } => self.switch(hands, journal, unacknowledged).await?,
                Step::Retire(id) => {
                    journal.retire(&id);
                    self.apply(hands, journal).await?;
                    tracing::info!(authority = id, "authority retired: its last leaf has ended");
                }
            }
        }
        Ok(())
    }

    async fn switch(&self, hands: &mut Hands, mut journal: Journal, unacknowledged: bool) -> Result<(), OpenError> {
        let prepared = journal.of(State::Prepared).map(|record| record.id.clone()).unwrap_or_default();
        if hands.signer(&prepared).is_none() {
            return Err(OpenError::KeyGone(prepared));
        }
        journal.activate(self.now());
        self.apply(hands, journal).await?;
        self.followers.forget_gone();
        if unacknowledged {
            let waiting = self.followers.waiting(&self.realm.load().digest).join(", ");
            tracing::warn!(authority = prepared, waiting, "authority activated before everybody acknowledged it");
        } else {
            tracing::info!(authority = prepared, "authority activated");
        }
        Ok(())
    }

    /// Makes `journal` the state of things: on disk, then in memory, then for those who follow. Keys that it does not name any
    /// more are destroyed last.
    async fn apply(&self, hands: &mut Hands, journal: Journal) -> Result<(), OpenError> {
        let before = self.realm();
        if journal == before.journal {
            return Ok(());
        }
        // Nothing is written that could not be read back as a bundle.
        let realm = realm_of(journal, hands, &self.config, before.bundles.denied().clone(), self.now())?;
        realm.journal.write(&hands.directory)?;
        self.install(realm);
        let realm = self.realm();
        hands.members.retain(|id, _| realm.journal.get(id).is_some());
        let kept = key_names(&realm.journal);
        for gone in key_names(&before.journal).difference(&kept) {
            hands.custody.destroy(gone)?;
        }
        self.refresh_server(hands).await;
        Ok(())
    }

    pub(super) fn install(&self, realm: Realm) {
        self.realm.store(Arc::new(realm));
        self.changes.send_replace(());
    }

    /// Makes, uses and drops the keys for tokens as the clock says.
    fn turn_ring(&self, hands: &mut Hands) -> Result<(), OpenError> {
        let now = self.now();
        let Some(turned) = hands.ring.turned(&hands.directory, &self.config.jwt, now)? else { return Ok(()) };
        tracing::info!(signing = turned.signing().kid(), "the keys for tokens have turned");
        hands.ring = turned;
        let realm = self.realm();
        let denied = realm.bundles.denied().clone();
        self.install(realm_of(realm.journal.clone(), hands, &self.config, denied, now)?);
        Ok(())
    }

    async fn renew_intermediates(&self, hands: &mut Hands) -> Result<(), OpenError> {
        let (now, mut journal) = (self.now(), self.realm().journal.clone());
        let mut renewed = Vec::new();
        for record in journal.authorities.iter_mut().filter(|record| record.state != State::Old) {
            let Some(root) = hands.members.get(&record.id).and_then(|member| member.root.as_ref()) else { continue };
            if record.chain().first().and_then(Found::read).is_none_or(|found| root.replaces(&found, now)) {
                renewed.push((record.id.clone(), hands.renew(root, record, now)?));
            }
        }
        for (id, signer) in renewed {
            tracing::info!(authority = id, "intermediate renewed");
            hands.members.entry(id).or_default().signer = Some(Arc::new(signer));
        }
        self.apply(hands, journal).await
    }

    /// Looks whether other files stand in `--cacerts`. Files that cannot be used are named once, and looked at again when they
    /// change.
    async fn adopt_files(&self, hands: &mut Hands) -> Result<(), OpenError> {
        let Some(dir) = &self.config.cacerts else { return Ok(()) };
        let now = self.now();
        let plugin = match Files::read(dir) {
            Ok(files) if files.digest() == hands.plugin.0 => return Ok(()),
            Ok(files) => {
                hands.plugin.0 = files.digest();
                files.judge(self.config.passphrase.as_ref(), &self.config.trust_domain, now)
            }
            // A mounted secret is swapped by links: for a moment nothing may be there.
            Err(error) => Err(error),
        };
        match plugin {
            Ok(plugin) => {
                hands.plugin.1 = None;
                let mut journal = self.realm().journal.clone();
                hands.plug(&mut journal, plugin, now);
                let applied = self.apply(hands, journal).await;
                if applied.is_err() {
                    hands.plugin.0 = UNSEEN;
                }
                applied
            }
            Err(error) => {
                if matches!(error, CacertsError::Dates { .. }) {
                    // The same files may be good at another time.
                    hands.plugin.0 = UNSEEN;
                }
                self.note_refused(hands, &error);
                Ok(())
            }
        }
    }

    fn note_refused(&self, hands: &mut Hands, error: &CacertsError) {
        let text = palisade_identity::error_chain(error);
        if hands.plugin.1.as_ref() != Some(&text) {
            self.metrics.maintenance_failed();
            tracing::error!(error = text, "the files in --cacerts are refused, the present authority stays");
            hands.plugin.1 = Some(text);
        }
    }

    /// The server's own certificate follows the active authority and the bundle.
    pub(super) async fn refresh_server(&self, hands: &Hands) {
        let (realm, now, serving) = (self.realm(), self.now(), self.server.load_full());
        if !serving.trusts(&realm) {
            // First and without a record: whom it trusts must not wait for a disk.
            let trusting = serving.with_trust(&realm, &self.clock);
            self.report("server", trusting.map(|next| self.server.store(Arc::new(next))));
        }
        if serving.fits(&realm) && !serving.due(now) {
            return;
        }
        let parts = server::Parts { config: &self.config, realm: &realm, crosses: server::crosses(&realm, hands, now) };
        let renewed = server::issue(parts, &self.store, &self.clock).await;
        self.report("server", renewed.map(|serving| self.server.store(Arc::new(serving))));
    }
}
