//! SPIFFE IDs and trust domains against a second, obvious grammar.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_identity::{SpiffeId, TrustDomain};

fn domain_ok(domain: &[u8]) -> bool {
    (1..=255).contains(&domain.len())
        && domain.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(byte))
}

fn segment_ok(segment: &[u8]) -> bool {
    !matches!(segment, b"" | b"." | b"..")
        && segment.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(byte))
}

fn id_ok(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"spiffe://") else { return false };
    let mut parts = rest.split(|byte| *byte == b'/');
    text.len() <= 2048 && parts.next().is_some_and(domain_ok) && parts.all(segment_ok)
}

fuzz_target!(|text: &str| {
    for text in [text.to_owned(), format!("spiffe://{text}"), format!("spiffe://a.test/{text}")] {
        let parsed = SpiffeId::parse(&text);
        assert_eq!(parsed.is_ok(), id_ok(text.as_bytes()), "{text:?}");
        if let Ok(id) = parsed {
            assert_eq!(id.to_string(), text);
            assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            assert_eq!(SpiffeId::parse(id.as_str()).as_ref(), Ok(&id));
        }
    }
    assert_eq!(TrustDomain::parse(text).is_ok(), domain_ok(text.as_bytes()));
});
