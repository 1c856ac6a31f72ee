//! The server's last word on entries, keys and revocations, as JSON, so that a restart gives everybody what they had.

use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_identity::{PrivateKey, TrustDomain, UnixTime, X509Svid};
use palisade_wire::agents;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zeroize::Zeroizing;

use super::FORMAT;
use super::format::DecodeIdentityError;
use crate::pem;
use crate::roster::{Entries, Entry, Held, State, issuers};

/// What is stored beside the agent's own identity.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) entries: Entries,
    pub(crate) jwks: BTreeMap<String, String>,
    pub(crate) denied: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    format: u32,
    entries: Vec<EntryFile>,
    jwks: BTreeMap<String, String>,
    denied: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct EntryFile {
    id: String,
    spiffe_id: String,
    selectors: Vec<String>,
    x509_ttl: i64,
    jwt_ttl: i64,
    dns_names: Vec<String>,
    hint: String,
    federates_with: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct SvidFile<'a> {
    format: u32,
    entry: EntryFile,
    due: u64,
    certificate_chain: String,
    #[serde(borrow)]
    private_key: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl From<agents::Entry> for EntryFile {
    fn from(entry: agents::Entry) -> Self {
        let agents::Entry { id, spiffe_id, selectors, x509_ttl, jwt_ttl, dns_names, hint, federates_with } = entry;
        Self { id, spiffe_id, selectors, x509_ttl, jwt_ttl, dns_names, hint, federates_with }
    }
}

impl EntryFile {
    fn parse(self, domain: &TrustDomain) -> Result<Entry, DecodeIdentityError> {
        let Self { id, spiffe_id, selectors, x509_ttl, jwt_ttl, dns_names, hint, federates_with } = self;
        let wire = agents::Entry { id, spiffe_id, selectors, x509_ttl, jwt_ttl, dns_names, hint, federates_with };
        Entry::parse(wire, domain).map_err(DecodeIdentityError::part("entry"))
    }
}

pub(super) fn encode(state: &State, denied: impl IntoIterator<Item = String>) -> String {
    let entries = state.entries.iter().flat_map(|entries| entries.iter());
    let file = StateFile {
        format: FORMAT,
        entries: entries.map(|entry| entry.to_wire().into()).collect(),
        jwks: state.jwks.as_ref().clone(),
        denied: denied.into_iter().collect(),
    };
    serde_json::to_string(&file).unwrap_or_default()
}

pub(super) fn decode(text: &str, domain: &TrustDomain) -> Result<Stored, DecodeIdentityError> {
    check_version(text)?;
    let file: StateFile = serde_json::from_str(text).map_err(DecodeIdentityError::Damaged)?;
    let entries: Result<Vec<Entry>, _> = file.entries.into_iter().map(|entry| entry.parse(domain)).collect();
    Ok(Stored { entries: Entries::new(entries?), jwks: file.jwks, denied: file.denied })
}

pub(super) fn encode_svid(held: &Held) -> Zeroizing<String> {
    let key = held.svid.key().to_pem();
    let file = SvidFile {
        format: FORMAT,
        entry: held.made_for.to_wire().into(),
        due: held.due.as_secs(),
        certificate_chain: held.svid.chain_pem(),
        private_key: std::borrow::Cow::Borrowed(key.as_str()),
    };
    Zeroizing::new(serde_json::to_string(&file).unwrap_or_default())
}

pub(super) fn decode_svid(text: &str, domain: &TrustDomain) -> Result<Held, DecodeIdentityError> {
    check_version(text)?;
    let file: SvidFile<'_> = serde_json::from_str(text).map_err(DecodeIdentityError::Damaged)?;
    let entry = file.entry.parse(domain)?;
    let chain = pem::certificates(&file.certificate_chain).map_err(DecodeIdentityError::part("certificate chain"))?;
    let pem_key = Zeroizing::new(file.private_key.into_owned());
    let key = PrivateKey::from_pem(pem_key.as_bytes()).map_err(DecodeIdentityError::part("private key"))?;
    let svid = X509Svid::new(chain, key).map_err(DecodeIdentityError::part("certificate"))?;
    if *svid.id() != entry.spiffe_id {
        return Err(DecodeIdentityError::OtherEntry { found: svid.id().clone(), entry: entry.id });
    }
    let due = UnixTime::since_unix_epoch(Duration::from_secs(file.due));
    let issuers = issuers(svid.chain());
    Ok(Held { svid: Arc::new(svid), made_for: Arc::new(entry), due, issuers, epoch: 0 })
}

fn check_version(text: &str) -> Result<(), DecodeIdentityError> {
    let version: Version = serde_json::from_str(text).map_err(DecodeIdentityError::Damaged)?;
    if version.format > FORMAT {
        return Err(DecodeIdentityError::Newer { found: version.format });
    }
    Ok(())
}
