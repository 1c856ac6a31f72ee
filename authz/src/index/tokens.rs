//! `requestPrincipals`: two tests at once, on the issuer and on the subject of a token.
//!
//! Each of the forms that a policy can write has an exact half, or is about one half alone; by that it is found, and
//! then tested itself.

use serde_json::Value;

use crate::index::hash::{Table, hash};
use crate::index::texts::Texts;
use crate::predicate::Text;

/// All of them, by the half that tells most.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Both halves exact.
    both: Table,
    issuers: Texts,
    subjects: Texts,
}

fn place(issuer: &[u8], subject: &[u8]) -> u64 {
    hash(hash(0, issuer), subject)
}

/// The length of the issuer, then both: no two pairs are one key.
fn key(issuer: &str, subject: &str) -> Vec<u8> {
    [&issuer.len().to_le_bytes(), issuer.as_bytes(), subject.as_bytes()].concat()
}

impl Tokens {
    pub(super) fn new<'a>(items: impl Iterator<Item = ((&'a Text, &'a Text), u32)> + Clone) -> Self {
        let exact = |((issuer, subject), id): ((&'a Text, &'a Text), u32)| match (issuer, subject) {
            (Text::Exact(issuer), Text::Exact(subject)) => {
                Some((place(issuer.as_bytes(), subject.as_bytes()), key(issuer, subject), id))
            }
            _ => None,
        };
        let keys: Vec<_> = items.clone().filter_map(exact).collect();
        let others = items.filter(|((issuer, subject), _)| !(is_exact(issuer) && is_exact(subject)));
        // By the subject where that is exact, or where it alone is asked for more than presence.
        let (by_subject, by_issuer): (Vec<_>, Vec<_>) =
            others.partition(|((issuer, subject), _)| is_exact(subject) || matches!(issuer, Text::Line));
        Self {
            both: Table::new(keys.iter().map(|(place, key, id)| (*place, key.as_slice(), *id))),
            issuers: Texts::new(by_issuer.iter().map(|((issuer, _), id)| (*issuer, *id))),
            subjects: Texts::new(by_subject.iter().map(|((_, subject), id)| (*subject, *id))),
        }
    }

    /// Calls `found` with all that may match.
    pub(super) fn find(&self, claims: &Value, found: &mut dyn FnMut(u32)) {
        let claim = |name| claims.get(name).and_then(Value::as_str).map(str::as_bytes);
        let (Some(issuer), Some(subject)) = (claim("iss"), claim("sub")) else {
            return;
        };
        let equal = |key: &[u8]| {
            let rest = key.strip_prefix(&issuer.len().to_le_bytes());
            rest.and_then(|rest| rest.strip_prefix(issuer)) == Some(subject)
        };
        self.both.find(place(issuer, subject), equal, found);
        self.issuers.find(issuer, found);
        self.subjects.find(subject, found);
    }
}

const fn is_exact(text: &Text) -> bool {
    matches!(text, Text::Exact(_))
}
