//! The keys of the moment, in one file that is replaced as a whole.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::JwtConfig;
use super::key::{JwtKey, JwtKeyError};
use crate::directory::{Directory, DirectoryError};

const FILE: &str = "jwt-keys.json";
const VERSION: u32 = 1;
/// Verifiers' clocks may lag that much behind: a key stays so much longer.
const LEEWAY: u64 = 300;

/// Why the keys cannot be used. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The directory or the file.
    #[error("the keys for tokens cannot be kept")]
    Directory(#[from] DirectoryError),
    /// Not what this release writes.
    #[error("`{}` is damaged: restore it from a backup, or remove it (verifiers must then fetch keys before tokens pass again)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Of a later release.
    #[error("`{}` has version {found}, this release reads {VERSION}: use the newer release", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A key.
    #[error("a key for tokens cannot be made")]
    Key(#[from] JwtKeyError),
}

/// A key with its dates, unix seconds.
#[derive(Clone, Debug)]
struct Held {
    key: Arc<JwtKey>,
    /// Signs from then on, until the next key does.
    active_from: u64,
}

/// The keys, oldest first: what is over but still verifies, what signs, what signs next.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    keys: Vec<Held>,
    signing: Arc<JwtKey>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    keys: Vec<KeptKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptKey {
    active_from: u64,
    /// PKCS#8, base64.
    pkcs8: Zeroizing<String>,
}

impl Ring {
    /// Reads the keys; the first start makes one that signs at once, for nobody has fetched anything yet.
    pub(crate) fn open(directory: &Directory, config: &JwtConfig, now: u64) -> Result<Self, RingError> {
        let held = match directory.read_secret(FILE)? {
            Some(text) => read(&text, directory.join(FILE))?,
            None => Vec::new(),
        };
        let opened = match Self::at(held, now) {
            Some(ring) => ring,
            None => {
                let ring = Self::first(now)?;
                ring.keep(directory)?;
                ring
            }
        };
        Ok(opened.turned(directory, config, now)?.unwrap_or(opened))
    }

    fn first(now: u64) -> Result<Self, RingError> {
        let key = Arc::new(JwtKey::generate()?);
        Ok(Self { keys: vec![Held { key: Arc::clone(&key), active_from: now }], signing: key })
    }

    /// The ring of these keys at this time; `None` without any. The clock may have gone back behind all of them: then the first
    /// one signs.
    fn at(mut keys: Vec<Held>, now: u64) -> Option<Self> {
        keys.sort_by_key(|held| held.active_from);
        let signing = keys.iter().rfind(|held| held.active_from <= now).or(keys.first())?;
        Some(Self { signing: Arc::clone(&signing.key), keys })
    }

    /// The key of the moment.
    pub(crate) fn signing(&self) -> &JwtKey {
        &self.signing
    }

    /// Public halves of all keys, with this `use`.
    pub(crate) fn jwks(&self, usage: &str) -> Vec<Value> {
        self.keys.iter().map(|held| held.key.jwk(usage)).collect()
    }

    /// What the clock asks for: the next key made, taken into use, an old one dropped. `None` if nothing changes. A new key is on
    /// disk before anybody sees it.
    pub(crate) fn turned(
        &self,
        directory: &Directory,
        config: &JwtConfig,
        now: u64,
    ) -> Result<Option<Self>, RingError> {
        let mut keys = self.keys.clone();
        let (lead, every) = (config.lead().as_secs(), config.rotate_every.as_secs());
        let newest = keys.last().map_or(now, |held| held.active_from);
        let due = newest.saturating_add(every);
        if due <= now.saturating_add(lead) {
            // After a long pause the date is past; verifiers still need their time.
            let active_from = due.max(now.saturating_add(lead));
            keys.push(Held { key: Arc::new(JwtKey::generate()?), active_from });
        }
        let last_word = config.max_ttl.as_secs().saturating_add(LEEWAY);
        let over: Vec<bool> = keys
            .iter()
            .zip(keys.iter().skip(1).map(|next| Some(next.active_from)).chain([None]))
            .map(|(_, next)| next.is_some_and(|next| next.saturating_add(last_word) <= now))
            .collect();
        let mut gone = over.iter();
        keys.retain(|_| !gone.next().copied().unwrap_or(false));
        let next = Self::at(keys, now).unwrap_or_else(|| self.clone());
        if next.kids() == self.kids() && next.signing.kid() == self.signing.kid() {
            return Ok(None);
        }
        if next.kids() != self.kids() {
            next.keep(directory)?;
        }
        Ok(Some(next))
    }

    fn kids(&self) -> Vec<&str> {
        self.keys.iter().map(|held| held.key.kid()).collect()
    }

    fn keep(&self, directory: &Directory) -> Result<(), RingError> {
        let kept = |held: &Held| -> Result<KeptKey, JwtKeyError> {
            let pkcs8 = Zeroizing::new(STANDARD.encode(held.key.to_pkcs8()?.as_slice()));
            Ok(KeptKey { active_from: held.active_from, pkcs8 })
        };
        let keys = self.keys.iter().map(kept).collect::<Result<_, _>>()?;
        let text =
            Zeroizing::new(serde_json::to_vec(&Kept { version: VERSION, keys }).map_err(|_| JwtKeyError::Generate)?);
        Ok(directory.replace(FILE, &text)?)
    }
}

fn read(text: &[u8], path: PathBuf) -> Result<Vec<Held>, RingError> {
    let damaged = |reason: String| RingError::Damaged { path: path.clone(), reason };
    let version = serde_json::from_slice::<Value>(text).ok().and_then(|kept| kept.get("version")?.as_u64());
    match version.and_then(|found| u32::try_from(found).ok()) {
        Some(found) if found > VERSION => return Err(RingError::Version { path, found }),
        _ => {}
    }
    let kept: Kept = serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
    let hold = |kept: &KeptKey| {
        let der = Zeroizing::new(STANDARD.decode(kept.pkcs8.as_bytes()).map_err(|error| damaged(error.to_string()))?);
        let key = JwtKey::from_pkcs8(&der).map_err(|error| damaged(error.to_string()))?;
        Ok(Held { key: Arc::new(key), active_from: kept.active_from })
    };
    kept.keys.iter().map(hold).collect()
}
