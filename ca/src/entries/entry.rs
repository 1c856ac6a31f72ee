//! One entry, checked, from wherever it comes.

use std::time::Duration;

use palisade_identity::{IdError, SpiffeId, TrustDomain};
use palisade_policies::{
    MAX_REGISTRATION_ITEMS, MAX_REGISTRATION_TEXT, RegistrationEntry, registration_dns_name, registration_id,
    registration_selector,
};
use palisade_wire::{admin, agents};

/// Why an entry is refused. The texts go to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A value of a field.
    #[error("{field}: `{value}` {wrong}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value as it came.
        value: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// Nobody would be meant.
    #[error(
        "selectors: at least one is needed, such as unix:uid:1000: without one every process would get the identity"
    )]
    NoSelectors,
    /// A list that is too long.
    #[error("{field}: {count} are too many, at most {MAX_REGISTRATION_ITEMS} are kept")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many there are.
        count: usize,
    },
    /// An ID of another trust domain.
    #[error("{field}: `{id}` is not of trust domain `{domain}`, in which certificates are issued")]
    Foreign {
        /// The field.
        field: &'static str,
        /// The ID.
        id: SpiffeId,
        /// The domain served.
        domain: TrustDomain,
    },
}

/// A registration entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Stable name: of a file `namespace/name`, of the administration API 32 hex digits.
    pub id: String,
    /// The identity given.
    pub spiffe_id: SpiffeId,
    /// The agent that serves it to its workloads; `None`: for who proves himself to the server.
    pub parent_id: Option<SpiffeId>,
    /// `kind:value`, sorted, each once, at least one: all must be among the workload's.
    pub selectors: Vec<String>,
    /// Lifetime of certificates; `None`: the server's default.
    pub x509_ttl: Option<Duration>,
    /// Lifetime of tokens; `None`: the server's default.
    pub jwt_ttl: Option<Duration>,
    /// DNS names of its certificates.
    pub dns_names: Vec<String>,
    /// Foreign trust domains whose bundles the workload gets.
    pub federates_with: Vec<TrustDomain>,
    /// Tells several identities of one workload apart.
    pub hint: String,
    /// `file:line` of the resource; `None`: made by the administration API.
    pub origin: Option<String>,
}

impl Entry {
    pub(super) fn of_file(entry: &RegistrationEntry) -> Self {
        Self {
            id: entry.meta.to_string(),
            spiffe_id: entry.spiffe_id.clone(),
            parent_id: entry.parent_id.clone(),
            selectors: entry.selectors.clone(),
            x509_ttl: entry.x509_ttl,
            jwt_ttl: entry.jwt_ttl,
            dns_names: entry.dns_names.clone(),
            federates_with: entry.federates_with.clone(),
            hint: entry.hint.clone(),
            origin: Some(entry.meta.origin.to_string()),
        }
    }

    pub(super) fn of_wire(
        wanted: &admin::RegistrationEntry,
        id: String,
        domain: &TrustDomain,
    ) -> Result<Self, EntryError> {
        let parent_id = match wanted.parent_id.as_str() {
            "" => None,
            parent => Some(own_id("parentId", parent, domain)?),
        };
        Ok(Self {
            id,
            spiffe_id: own_id("spiffeId", &wanted.spiffe_id, domain)?,
            parent_id,
            selectors: selectors(&wanted.selectors)?,
            x509_ttl: ttl("x509TTL", wanted.x509_ttl)?,
            jwt_ttl: ttl("jwtTTL", wanted.jwt_ttl)?,
            dns_names: each("dnsNames", &wanted.dns_names, registration_dns_name)?,
            federates_with: each("federatesWith", &wanted.federates_with, |text| {
                TrustDomain::parse(text.strip_prefix("spiffe://").unwrap_or(text))
                    .map_err(|error: IdError| format!("is not a trust domain: {error}"))
            })?,
            hint: hint(&wanted.hint)?,
            origin: None,
        })
    }

    /// Whether the other entry gives the same identity to the same workloads.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (&self.spiffe_id, &self.parent_id, &self.selectors) == (&other.spiffe_id, &other.parent_id, &other.selectors)
    }

    /// The entry as the administration API shows it.
    #[must_use]
    pub fn to_admin(&self) -> admin::RegistrationEntry {
        admin::RegistrationEntry {
            id: self.id.clone(),
            spiffe_id: self.spiffe_id.to_string(),
            parent_id: self.parent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            selectors: self.selectors.clone(),
            x509_ttl: seconds(self.x509_ttl),
            jwt_ttl: seconds(self.jwt_ttl),
            dns_names: self.dns_names.clone(),
            federates_with: self.federates_with.iter().map(ToString::to_string).collect(),
            hint: self.hint.clone(),
            origin: self.origin.clone().unwrap_or_default(),
        }
    }

    /// The entry as agents get it.
    #[must_use]
    pub fn to_agent(&self) -> agents::Entry {
        agents::Entry {
            id: self.id.clone(),
            spiffe_id: self.spiffe_id.to_string(),
            selectors: self.selectors.clone(),
            x509_ttl: seconds(self.x509_ttl),
            jwt_ttl: seconds(self.jwt_ttl),
            dns_names: self.dns_names.clone(),
            hint: self.hint.clone(),
            federates_with: self.federates_with.iter().map(ToString::to_string).collect(),
        }
    }
}

fn seconds(ttl: Option<Duration>) -> i64 {
    ttl.map_or(0, |ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX))
}

fn value(field: &'static str, value: &str, wrong: impl Into<String>) -> EntryError {
    let value = value.chars().take(80).flat_map(char::escape_debug).collect();
    EntryError::Value { field, value, wrong: wrong.into() }
}

fn own_id(field: &'static str, text: &str, domain: &TrustDomain) -> Result<SpiffeId, EntryError> {
    let id = registration_id(text).map_err(|wrong| value(field, text, wrong))?;
    if id.trust_domain() != *domain {
        return Err(EntryError::Foreign { field, id, domain: domain.clone() });
    }
    Ok(id)
}

fn each<T, E: Into<String>>(
    field: &'static str,
    texts: &[String],
    check: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, EntryError> {
    if texts.len() > MAX_REGISTRATION_ITEMS {
        return Err(EntryError::TooMany { field, count: texts.len() });
    }
    texts.iter().map(|text| check(text).map_err(|wrong| value(field, text, wrong))).collect()
}

fn selectors(texts: &[String]) -> Result<Vec<String>, EntryError> {
    let checked = |text: &str| match text.chars().count() {
        0..=MAX_REGISTRATION_TEXT => registration_selector(text).map(|()| text.to_owned()),
        _ => Err("is too long"),
    };
    let mut selectors = each("selectors", texts, checked)?;
    selectors.sort_unstable();
    selectors.dedup();
    if selectors.is_empty() { Err(EntryError::NoSelectors) } else { Ok(selectors) }
}

fn ttl(field: &'static str, seconds: i64) -> Result<Option<Duration>, EntryError> {
    match u64::try_from(seconds) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => Err(value(field, &seconds.to_string(), "is negative")),
    }
}

fn hint(text: &str) -> Result<String, EntryError> {
    if text.chars().count() > MAX_REGISTRATION_TEXT || text.chars().any(char::is_control) {
        return Err(value("hint", text, "is too long or holds control characters"));
    }
    Ok(text.to_owned())
}
