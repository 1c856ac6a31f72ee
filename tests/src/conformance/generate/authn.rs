//! Keys, token rules, and tokens, good and bad.

mod keys;
mod rules;
mod tokens;

pub(in crate::conformance) use keys::Keys;
pub(super) use rules::policies;
pub(super) use tokens::carry;
