//! Every diagnostic code with its explanation. A finding can only be made from an entry of this catalogue, so a code
//! without an explanation cannot exist; codes are never given a new meaning.

use crate::Severity;

/// Defines the entries of one room of the catalogue, and the list of them.
macro_rules! catalogue {
    ($($name:ident $code:literal $severity:ident $title:literal why $why:literal fix $fix:literal)*) => {
        $(pub(crate) static $name: crate::catalogue::Explanation = crate::catalogue::Explanation {
            code: $code,
            severity: crate::Severity::$severity,
            title: $title,
            why: $why,
            fix: $fix,
        };)*
        pub(super) static ALL: &[&crate::catalogue::Explanation] = &[$(&$name),*];
    };
}

pub(crate) mod authorization;
pub(crate) mod ca;
pub(crate) mod mesh;
pub(crate) mod peer;
pub(crate) mod reading;
pub(crate) mod registration;
pub(crate) mod request;
pub(crate) mod shape;
pub(crate) mod traps;
pub(crate) mod unsupported;
pub(crate) mod workloads;

/// What a diagnostic code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// The code, for example `PAL0101`.
    pub code: &'static str,
    /// Whether it refuses the resource.
    pub severity: Severity,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// The explanation of a code; letter case does not matter.
#[must_use]
pub fn explain(code: &str) -> Option<&'static Explanation> {
    codes().find(|explanation| explanation.code.eq_ignore_ascii_case(code))
}

/// All codes that loading can give, and those of the traps that an author's tool finds, in order.
pub fn codes() -> impl Iterator<Item = &'static Explanation> {
    let rooms = [
        reading::ALL,
        shape::ALL,
        authorization::ALL,
        peer::ALL,
        request::ALL,
        workloads::ALL,
        mesh::ALL,
        unsupported::ALL,
        traps::ALL,
        registration::ALL,
        ca::ALL,
    ];
    rooms.into_iter().flatten().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ordered_and_explained() {
        let codes: Vec<_> = codes().collect();
        assert!(codes.windows(2).all(|pair| pair[0].code < pair[1].code), "order");
        for entry in codes {
            assert!(entry.code.len() == 7 && entry.code.starts_with("PAL"), "{}", entry.code);
            for text in [entry.title, entry.why, entry.fix] {
                assert!(!text.is_empty() && !text.ends_with(['.', ' ']), "{}: {text}", entry.code);
            }
            assert_eq!(explain(&entry.code.to_lowercase()), Some(entry));
        }
        assert_eq!(explain("PAL9999"), None);
    }
}
