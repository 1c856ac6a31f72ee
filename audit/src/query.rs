//! Questions to the record, and what an answer says about itself.

use std::fmt;
use std::net::IpAddr;

use palisade_wire::admin::AuditQuery;
use palisade_wire::audit::{Event, Kind, Party, Verdict};

/// Most rows of one answer.
pub const MAX_ROWS: u32 = 10_000;

/// Which events are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Only this verdict.
    pub verdict: Option<Verdict>,
    /// Only from this caller.
    pub from: Option<PartyFilter>,
    /// Only to this destination.
    pub to: Option<PartyFilter>,
    /// First instant, Unix nanoseconds; 0 means from the beginning.
    pub since: u64,
    /// First instant that is no longer asked for, Unix nanoseconds; 0 means no end.
    pub until: u64,
    /// Newest rows kept; 0, or more than [`MAX_ROWS`], means [`MAX_ROWS`].
    pub limit: u32,
}

/// A caller or destination: principal, `namespace/workload`, workload, namespace or address, or a prefix of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyFilter {
    text: String,
    prefix: bool,
}

/// Why a question cannot be asked. Names the value and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Neither verdict.
    #[error("`{0}` is no verdict; use `allow` or `deny`")]
    Verdict(String),
    /// A `*` before the end.
    #[error("`{0}` has a `*` before its end; only a prefix can be asked for, as in `cluster.local/ns/shop/*`")]
    Star(String),
    /// Control characters, or longer than any name.
    #[error("`{0}` is no name; use a principal, namespace/workload, workload, namespace or address")]
    Name(String),
    /// The end is not after the beginning.
    #[error("the window ends before it begins; give an end after the beginning")]
    Window,
}

impl PartyFilter {
    /// Reads a filter. `spiffe://` before a principal is taken off, an address is brought to its usual form.
    ///
    /// # Errors
    /// [`QueryError::Star`] and [`QueryError::Name`].
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let shown = || text.chars().take(80).collect::<String>().escape_debug().to_string();
        if text.len() > 2100 || text.chars().any(char::is_control) {
            return Err(QueryError::Name(shown()));
        }
        let name = text.strip_prefix("spiffe://").unwrap_or(text);
        let (name, prefix) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
        if name.contains('*') {
            return Err(QueryError::Star(shown()));
        }
        let text = match name.parse::<IpAddr>() {
            Ok(address) if !prefix => address.to_canonical().to_string(),
            _ => name.to_owned(),
        };
        Ok(Self { text, prefix })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_prefix(&self) -> bool {
        self.prefix
    }

    fn matches(&self, party: Option<&Party>) -> bool {
        let Some(party) = party else { return false };
        let fits = |value: &str| {
            !value.is_empty() && if self.prefix { value.starts_with(&self.text) } else { value == self.text }
        };
        let whole = !party.namespace.is_empty() && !party.workload.is_empty();
        fits(&party.principal)
            || fits(&party.workload)
            || fits(&party.namespace)
            || fits(&party.ip)
            || (whole && fits(&format!("{}/{}", party.namespace, party.workload)))
    }
}

impl Query {
    /// Whether a follower of this question wants `event`. A gap always: what was lost might have been meant.
    #[must_use]
    pub fn follows(&self, event: &Event) -> bool {
        if event.kind() == Kind::Gap {
            return true;
        }
        self.verdict.is_none_or(|verdict| event.verdict == i32::from(verdict))
            && self.from.as_ref().is_none_or(|from| from.matches(event.source.as_ref()))
            && self.to.as_ref().is_none_or(|to| to.matches(event.destination.as_ref()))
            && event.time_ns >= self.since
            && (self.until == 0 || event.time_ns < self.until)
    }

    pub(crate) fn rows(&self) -> u32 {
        if self.limit == 0 { MAX_ROWS } else { self.limit.min(MAX_ROWS) }
    }
}

impl TryFrom<AuditQuery> for Query {
    type Error = QueryError;

    fn try_from(asked: AuditQuery) -> Result<Self, QueryError> {
        let verdict = match asked.verdict.as_str() {
            "" => None,
            "allow" => Some(Verdict::Allow),
            "deny" => Some(Verdict::Deny),
            other => {
                return Err(QueryError::Verdict(other.chars().take(80).collect::<String>().escape_debug().to_string()));
            }
        };
        let party = |text: &str| if text.is_empty() { Ok(None) } else { PartyFilter::parse(text).map(Some) };
        if asked.until_ns != 0 && asked.until_ns <= asked.since_ns {
            return Err(QueryError::Window);
        }
        let (from, to) = (party(&asked.from)?, party(&asked.to)?);
        Ok(Self { verdict, from, to, since: asked.since_ns, until: asked.until_ns, limit: asked.limit })
    }
}

/// Rows, oldest first, and whether they are all there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Ordered by time, then by arrival.
    pub events: Vec<Event>,
    /// What may be missing.
    pub completeness: Completeness,
}

/// What is known to be missing from an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completeness {
    /// Empty if nothing is.
    pub reasons: Vec<Reason>,
}

impl Completeness {
    /// True if nothing is known to be missing.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// One thing that is missing, or may be. `Display` is what a user reads: its first word is `limit`, `gap` or `pending`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// More rows match than were asked for.
    Limit {
        /// Rows given.
        rows: u32,
    },
    /// The enforcer lost events.
    Gap {
        /// Who.
        enforcer: String,
        /// Its numbering.
        epoch: u64,
        /// First number lost.
        from: u64,
        /// Last number lost; 0 if nobody knows, or whether any was.
        to: u64,
        /// `overflow`, `crash` or `corrupt`.
        cause: String,
    },
    /// Numbers that later ones have overtaken.
    Hole {
        /// Who.
        enforcer: String,
        /// Its numbering.
        epoch: u64,
        /// First number missing.
        from: u64,
        /// Last number missing.
        to: u64,
    },
    /// The enforcer is connected and has more to send.
    Backlog {
        /// Who.
        enforcer: String,
        /// Events that the store lacks.
        events: u64,
    },
    /// The enforcer is not connected, and its numbering has not ended: it may hold events.
    Away {
        /// Who.
        enforcer: String,
        /// Time of its last event in the store, Unix nanoseconds.
        last: u64,
    },
    /// There are more reasons than are listed.
    More,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { rows } => {
                write!(f, "limit: only the newest {rows} rows are given; narrow the window or ask for more")
            }
            Self::Gap { enforcer, from, to: 0, cause, .. } => {
                write!(f, "gap: {enforcer} may have lost events from number {from} on ({cause})")
            }
            Self::Gap { enforcer, from, to, cause, .. } => {
                let count = to.saturating_sub(*from).saturating_add(1);
                write!(f, "gap: {enforcer} lost {count} events, numbers {from} to {to} ({cause})")
            }
            Self::Hole { enforcer, from, to, .. } => {
                write!(f, "pending: numbers {from} to {to} of {enforcer} have not arrived")
            }
            Self::Backlog { enforcer, events } => write!(f, "pending: {events} events of {enforcer} are on their way"),
            Self::Away { enforcer, last } => {
                write!(
                    f,
                    "pending: {enforcer} is not connected and may hold events after {}",
                    crate::window::format(*last)
                )
            }
            Self::More => write!(f, "pending: and more than can be listed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_the_value_and_the_fix() {
        for (text, error) in [
            ("a*b", QueryError::Star("a*b".into())),
            ("a\nb", QueryError::Name("a\\nb".into())),
            ("a\u{0}", QueryError::Name("a\\0".into())),
        ] {
            assert_eq!(PartyFilter::parse(text), Err(error));
        }
        let asked = |verdict: &str, since_ns, until_ns| AuditQuery {
            verdict: verdict.into(),
            since_ns,
            until_ns,
            ..AuditQuery::default()
        };
        assert_eq!(Query::try_from(asked("DENY", 0, 0)), Err(QueryError::Verdict("DENY".into())));
        assert_eq!(Query::try_from(asked("deny", 5, 5)), Err(QueryError::Window));
        assert_eq!(Query::try_from(asked("", 5, 0)).map(|query| query.since), Ok(5));
    }

    #[test]
    fn a_filter_reads_each_name_of_a_party() {
        let party = Party {
            principal: "cluster.local/ns/shop/sa/cart".into(),
            namespace: "shop".into(),
            workload: "cart-0".into(),
            ip: "10.0.0.9".into(),
            ..Party::default()
        };
        let matches = |text: &str| PartyFilter::parse(text).unwrap().matches(Some(&party));
        for text in [
            "spiffe://cluster.local/ns/shop/sa/cart",
            "cluster.local/ns/shop/*",
            "shop",
            "cart-0",
            "shop/cart-0",
            "shop/ca*",
            "::ffff:10.0.0.9",
            "10.0.*",
            "*",
        ] {
            assert!(matches(text), "{text}");
        }
        for text in ["shop/", "cart", "cluster.local", "10.0.0.90", "hop*", "shop/cart-0/x"] {
            assert!(!matches(text), "{text}");
        }
        assert!(!PartyFilter::parse("*").unwrap().matches(None));
    }

    #[test]
    fn a_limit_is_never_beyond_the_most() {
        for (limit, rows) in [(0, MAX_ROWS), (5, 5), (u32::MAX, MAX_ROWS)] {
            assert_eq!(Query { limit, ..Query::default() }.rows(), rows);
        }
    }
}
