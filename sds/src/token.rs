//! Join tokens: what a new agent is given instead of trust on first use.
//!
//! `pjt1.<secret>.<hex SHA-256 of the root>`: the first part is shown to the authority, once; the last part lets the
//! agent recognise the authority before it shows it.

use std::fmt;

use zeroize::Zeroizing;

/// A join token. [`fmt::Debug`] never shows the secret.
#[derive(Clone)]
pub struct JoinToken {
    text: Zeroizing<String>,
    root_sha256: [u8; 32],
}

/// Why a text is no join token. Never repeats the text: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// Not three parts separated by dots, or too long.
    #[error("a join token has three parts, `pjt1.<secret>.<hash of the root>`")]
    Shape,
    /// Another version of the format.
    #[error("a join token begins with `pjt1.`")]
    Version,
    /// The secret is empty or holds a character outside of base64url.
    #[error("the secret of a join token is base64url without padding")]
    Secret,
    /// The hash is not 64 hexadecimal digits.
    #[error("the last part of a join token is the root's SHA-256 in 64 hexadecimal digits")]
    RootHash,
}

/// Longer than any token; bounds what is read from a file.
pub(crate) const MAX_TOKEN_BYTES: usize = 1024;

impl JoinToken {
    /// Parses a token; white space around it is ignored.
    ///
    /// # Errors
    /// [`ParseTokenError`] names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ParseTokenError> {
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(ParseTokenError::Shape);
        }
        let mut parts = text.split('.');
        let (Some(version), Some(secret), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseTokenError::Shape);
        };
        if version != "pjt1" {
            return Err(ParseTokenError::Version);
        }
        let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if secret.is_empty() || !secret.bytes().all(base64url) {
            return Err(ParseTokenError::Secret);
        }
        let root_sha256 = hex32(hash).ok_or(ParseTokenError::RootHash)?;
        Ok(Self { text: Zeroizing::new(text.to_owned()), root_sha256 })
    }

    /// SHA-256 of the DER of the root that the server's chain must end in.
    pub fn root_sha256(&self) -> [u8; 32] {
        self.root_sha256
    }

    /// The whole token, as it is sent to the authority. Secret.
    pub(crate) fn secret_text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(secret)")
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_the_hash_of_the_root() {
        let text = format!("  pjt1.c2VjcmV0_-.{}\n", "0aFf".repeat(16));
        let token = JoinToken::parse(&text).unwrap();
        assert_eq!(token.root_sha256()[..2], [0x0a, 0xff]);
        assert_eq!(token.secret_text(), text.trim());
        assert!(!format!("{token:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn what_is_wrong_is_named_and_the_text_never_repeated() {
        let hash = "ab".repeat(32);
        let cases = [
            (String::new(), ParseTokenError::Shape),
            ("pjt1.secret".to_owned(), ParseTokenError::Shape),
            (format!("pjt1.a.{hash}.b"), ParseTokenError::Shape),
            (format!("pjt1.{}.{hash}", "a".repeat(2000)), ParseTokenError::Shape),
            (format!("pjt2.secret.{hash}"), ParseTokenError::Version),
            (format!("pjt1..{hash}"), ParseTokenError::Secret),
            (format!("pjt1.sec ret.{hash}"), ParseTokenError::Secret),
            ("pjt1.secret.ab".to_owned(), ParseTokenError::RootHash),
            (format!("pjt1.secret.{}é", "a".repeat(62)), ParseTokenError::RootHash),
        ];
        for (text, expected) in cases {
            let error = JoinToken::parse(&text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("secret.ab"));
        }
    }
}
