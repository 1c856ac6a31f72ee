//! The SPIFFE grammar: every hostile spelling by name, then everything else by property.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> IdError {
    SpiffeId::parse(text).expect_err(text)
}

#[test]
fn plain_ids_are_taken_apart() {
    let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(id.principal(), "cluster.local/ns/shop/sa/cart");
    assert_eq!(id.trust_domain().as_str(), "cluster.local");
    assert_eq!(id.trust_domain_name(), "cluster.local");
    assert_eq!(id.path(), "/ns/shop/sa/cart");
    assert_eq!(id.namespace_and_service_account(), Some(("shop", "cart")));
    assert_eq!(id.to_string(), id.as_str());
    assert_eq!(format!("{id:?}"), "SpiffeId(spiffe://cluster.local/ns/shop/sa/cart)");
}

#[test]
fn ids_that_look_odd_but_are_valid() {
    for text in [
        "spiffe://a",
        "spiffe://10.0.0.1/x",
        "spiffe://-_.-/x",
        "spiffe://a/...",
        "spiffe://a/.x/x./-/_",
        "spiffe://a/UPPER/Case",
        "spiffe://a.test.evil/ns/x/sa/y",
    ] {
        assert_eq!(SpiffeId::parse(text).expect(text).as_str(), text);
    }
}

const HOSTILE: &[(&str, IdError)] = {
    use IdError::*;
    &[
        ("", Scheme),
        ("a.test/x", Scheme),
        ("https://a.test/x", Scheme),
        ("SPIFFE://a.test/x", Scheme),
        ("Spiffe://a.test/x", Scheme),
        ("spiffe:/a.test/x", Scheme),
        ("spiffe:a.test/x", Scheme),
        (" spiffe://a.test/x", Scheme),
        ("\u{feff}spiffe://a.test/x", Scheme),
        ("spiffe://", EmptyTrustDomain),
        ("spiffe:///x", EmptyTrustDomain),
        ("spiffe://A.test/x", TrustDomainCharacter('A')),
        ("spiffe://a.test:8443/x", TrustDomainCharacter(':')),
        ("spiffe://user@a.test/x", TrustDomainCharacter('@')),
        ("spiffe://user:pw@a.test/x", TrustDomainCharacter(':')),
        ("spiffe://[::1]/x", TrustDomainCharacter('[')),
        ("spiffe://a%2etest/x", TrustDomainCharacter('%')),
        ("spiffe://a.test?x", TrustDomainCharacter('?')),
        ("spiffe://a.test#x", TrustDomainCharacter('#')),
        ("spiffe://a.test\\x", TrustDomainCharacter('\\')),
        ("spiffe://a.test,spiffe://b.test/x", TrustDomainCharacter(',')),
        ("spiffe://\u{e4}.test/x", TrustDomainCharacter('\u{e4}')),
        ("spiffe://\u{430}.test/x", TrustDomainCharacter('\u{430}')),
        ("spiffe://a.test ", TrustDomainCharacter(' ')),
        ("spiffe://a.test\n", TrustDomainCharacter('\n')),
        ("spiffe://a.test/", TrailingSlash),
        ("spiffe://a.test//", TrailingSlash),
        ("spiffe://a.test/x/", TrailingSlash),
        ("spiffe://a.test//x", EmptySegment),
        ("spiffe://a.test/x//y", EmptySegment),
        ("spiffe://a.test/.", DotSegment),
        ("spiffe://a.test/..", DotSegment),
        ("spiffe://a.test/x/../y", DotSegment),
        ("spiffe://a.test/./y", DotSegment),
        ("spiffe://a.test/x%2fy", PathCharacter('%')),
        ("spiffe://a.test/%2e%2e/y", PathCharacter('%')),
        ("spiffe://a.test/x?q=1", PathCharacter('?')),
        ("spiffe://a.test/x#f", PathCharacter('#')),
        ("spiffe://a.test/x;v=1", PathCharacter(';')),
        ("spiffe://a.test/x,spiffe://b.test/y", PathCharacter(',')),
        ("spiffe://a.test/x y", PathCharacter(' ')),
        ("spiffe://a.test/x\0", PathCharacter('\0')),
        ("spiffe://a.test/x\\y", PathCharacter('\\')),
        ("spiffe://a.test/*", PathCharacter('*')),
        ("spiffe://a.test/\u{fc}", PathCharacter('\u{fc}')),
    ]
};

#[test]
fn trap_09_hostile_spellings_are_refused_with_their_reason() {
    for (text, reason) in HOSTILE {
        assert_eq!(refused(text), *reason, "{text:?}");
    }
}

#[test]
fn lengths_are_bounded_exactly() {
    let domain = "d".repeat(255);
    assert!(TrustDomain::parse(&domain).is_ok());
    assert_eq!(TrustDomain::parse(&format!("{domain}d")), Err(IdError::TrustDomainTooLong(256)));
    assert_eq!(refused(&format!("spiffe://{domain}d/x")), IdError::TrustDomainTooLong(256));

    let longest = format!("spiffe://a/{}", "x".repeat(2048 - "spiffe://a/".len()));
    assert_eq!(SpiffeId::parse(&longest).unwrap().as_str().len(), 2048);
    assert_eq!(refused(&format!("{longest}x")), IdError::TooLong(2049));
}

#[test]
fn trust_domain_names_are_bare() {
    for (name, reason) in [
        ("", IdError::EmptyTrustDomain),
        ("spiffe://a.test", IdError::TrustDomainCharacter(':')),
        ("a.test/", IdError::TrustDomainCharacter('/')),
        ("A", IdError::TrustDomainCharacter('A')),
        ("*", IdError::TrustDomainCharacter('*')),
    ] {
        assert_eq!(TrustDomain::parse(name), Err(reason), "{name:?}");
    }
    let domain: TrustDomain = "a.test".parse().unwrap();
    assert_eq!(domain.id().as_str(), "spiffe://a.test");
    assert_eq!(domain.id().path(), "");
    assert_eq!(domain.id().trust_domain(), domain);
}

#[test]
fn a_domain_cut_from_an_id_equals_a_parsed_one() {
    let id = SpiffeId::parse("spiffe://a.test/ns/n/sa/s").unwrap();
    let parsed = TrustDomain::parse("a.test").unwrap();
    let cut = id.trust_domain();
    assert_eq!(cut, parsed);
    assert_eq!(cut.cmp(&parsed), std::cmp::Ordering::Equal);
    assert_eq!(cut.id(), parsed.id());
    assert_eq!(cut.id().as_str(), "spiffe://a.test");
    assert!(HashSet::from([parsed.clone()]).contains("a.test"));
    assert!(HashSet::from([parsed]).contains(&cut));
    let ordered = BTreeSet::from([cut, TrustDomain::parse("b.test").unwrap()]);
    assert_eq!(ordered.first().map(TrustDomain::as_str), Some("a.test"));
}

#[test]
fn workload_ids_are_built_from_single_segments() {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let id = SpiffeId::workload(&domain, "shop", "cart").unwrap();
    assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    for (namespace, account, reason) in [
        ("", "cart", IdError::EmptySegment),
        ("shop", "", IdError::EmptySegment),
        ("shop/sa/admin", "x", IdError::PathCharacter('/')),
        ("shop", "cart/../admin", IdError::PathCharacter('/')),
        ("..", "cart", IdError::DotSegment),
        ("shop", "a,b", IdError::PathCharacter(',')),
    ] {
        assert_eq!(SpiffeId::workload(&domain, namespace, account), Err(reason));
    }
    assert!(matches!(SpiffeId::workload(&domain, &"n".repeat(2048), "s"), Err(IdError::TooLong(_))));
}

#[test]
fn only_istio_s_exact_shape_has_namespace_and_account() {
    for path in
        ["", "/x", "/ns/a", "/ns/a/sa", "/ns/a/sa/b/c", "/ns/a/x/sa/b", "/x/ns/a/sa/b", "/NS/a/SA/b", "/ns/a/sb/c"]
    {
        let id = SpiffeId::parse(&format!("spiffe://a.test{path}")).unwrap();
        assert_eq!(id.namespace_and_service_account(), None, "{path}");
    }
    let nested = SpiffeId::parse("spiffe://a.test/ns/sa/sa/ns").unwrap();
    assert_eq!(nested.namespace_and_service_account(), Some(("sa", "ns")));
}

/// The grammar once more, slow and obvious, from the text of SPIFFE-ID 2.1 to 2.3.
fn obviously_valid(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() > 2048 || !bytes.starts_with(b"spiffe://") {
        return false;
    }
    let parts: Vec<&[u8]> = bytes[9..].split(|byte| *byte == b'/').collect();
    let domain_ok = (1..=255).contains(&parts[0].len())
        && parts[0].iter().all(|b| b"abcdefghijklmnopqrstuvwxyz0123456789.-_".contains(b));
    domain_ok
        && parts[1..].iter().all(|segment| {
            !segment.is_empty()
                && *segment != b"."
                && *segment != b".."
                && segment.iter().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(b))
        })
}

fn nearly_an_id() -> impl Strategy<Value = String> {
    let domain = "[a-z0-9._-]{1,12}|[a-zA-Z0-9.:@%_-]{0,12}";
    let segment = "[a-zA-Z0-9._-]{1,8}|\\.{1,3}|[a-z%/?#;, ]{0,4}|[ -~]{0,5}|.{0,3}";
    (domain, prop::collection::vec(segment, 0..5)).prop_map(|(domain, segments)| {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        format!("spiffe://{domain}{path}")
    })
}

proptest! {
    #[test]
    fn what_is_valid_prints_as_it_was_written(
        domain in "[a-z0-9._-]{1,40}",
        segments in prop::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}", 0..6),
    ) {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        let text = format!("spiffe://{domain}{path}");
        let id = SpiffeId::parse(&text).unwrap();
        prop_assert_eq!(&id.to_string(), &text);
        prop_assert_eq!(id.path(), &path);
        prop_assert_eq!(SpiffeId::parse(id.as_ref()), Ok(id.clone()));
        prop_assert_eq!(id.trust_domain(), TrustDomain::parse(&domain).unwrap());
    }

    #[test]
    fn near_misses_are_judged_as_the_obvious_grammar_does(text in nearly_an_id()) {
        prop_assert_eq!(SpiffeId::parse(&text).is_ok(), obviously_valid(&text), "{:?}", text);
    }

    #[test]
    fn any_text_is_judged_without_a_panic(text in ".{0,80}") {
        prop_assert_eq!(SpiffeId::parse(&text).is_ok(), obviously_valid(&text));
        let _ = TrustDomain::parse(&text);
    }

    #[test]
    fn order_and_equality_are_those_of_the_text(a in nearly_an_id(), b in nearly_an_id()) {
        if let (Ok(left), Ok(right)) = (SpiffeId::parse(&a), SpiffeId::parse(&b)) {
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(left == right, a == b);
        }
    }
}
