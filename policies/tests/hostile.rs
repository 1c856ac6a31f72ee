//! Input that is made to hurt: every case ends with an answer, and with few findings, whatever its size.

use std::fs;

use palisade_policies::{Loaded, MAX_TOTAL_VALUES, MeshConfig, ReadError, SourceText, load, read_paths};

const MEGABYTE: usize = 1 << 20;

const POLICY: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  rules:\n";

const TOKENS: &str =
    "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: p}\nspec:\n  jwtRules:\n";

fn one(text: String) -> Loaded {
    let loaded = load(&[SourceText::new("f", text)], "default");
    assert!(loaded.diagnostics.len() <= 1001, "findings are bounded");
    let long = loaded.diagnostics.iter().map(|found| found.to_string().len()).max().unwrap_or(0);
    assert!(long < 1000, "and so is each");
    loaded
}

/// The codes, each once.
fn codes(loaded: &Loaded) -> Vec<&'static str> {
    let mut codes: Vec<_> = loaded.diagnostics.iter().map(|found| found.code).collect();
    codes.dedup();
    codes
}

#[test]
fn ten_megabytes_of_one_value_are_a_value() {
    let loaded = one(format!("{POLICY}  - to: [{{operation: {{paths: [\"/{}\"]}}}}]\n", "x".repeat(10 * MEGABYTE)));
    assert_eq!((codes(&loaded).len(), loaded.resources.len()), (0, 1));
    let path = &loaded.resources.authorization_policies[0].rules[0].to[0].paths[0];
    assert_eq!(path.len(), 10 * MEGABYTE + 1);
}

#[test]
fn ten_megabytes_of_nothing_are_nothing() {
    let blank = one(" \n".repeat(5 * MEGABYTE));
    assert_eq!((blank.diagnostics.len(), blank.resources.len()), (0, 0));
    let comments = one("# comment\n".repeat(MEGABYTE));
    assert_eq!((comments.diagnostics.len(), comments.resources.len()), (0, 0));
}

#[test]
fn ten_megabytes_of_noise_are_one_error() {
    for noise in ["'", "\"", "a:", "[", "{", "? ", "&a ", "*a ", "!", "%", "@", "\\", "| ", "\t", "\u{0}"] {
        let loaded = one(noise.repeat(MEGABYTE / noise.len()));
        assert!(loaded.refused <= 1 && loaded.diagnostics.len() == loaded.refused, "{noise:?}: {:?}", codes(&loaded));
    }
    assert_eq!(codes(&one("'".repeat(10 * MEGABYTE))).len(), 1);
}

#[test]
fn a_million_values_are_too_many_for_a_document() {
    let list = format!("{POLICY}  - to: [{{operation: {{paths: [{}]}}}}]\n", "/a,".repeat(3 * MEGABYTE));
    assert_eq!(codes(&one(list)), ["PAL0011"]);
    assert_eq!(codes(&one("[".to_owned() + &"{a: b},".repeat(MEGABYTE))), ["PAL0011"]);
    for flow in ["[],", "a: ", "? ", "\"\":", "'':", "?\n"] {
        let loaded = one("[".to_owned() + &flow.repeat(MEGABYTE));
        assert_eq!(codes(&loaded), ["PAL0011"], "{flow}");
        let found = &loaded.diagnostics[0];
        assert_eq!((found.line, found.column), (1, 1), "before anything is parsed");
    }
    let (config, found) =
        MeshConfig::parse(&SourceText::new("f", format!("trustDomainAliases: [{}]", "a,".repeat(5 * MEGABYTE))));
    assert_eq!((config.is_none(), found[0].code, found.len()), (true, "PAL0011", 1));
}

#[test]
fn many_values_are_read() {
    let many = format!("{POLICY}  - to: [{{operation: {{paths: [{}]}}}}]\n", "/a,".repeat(100_000));
    let loaded = one(many);
    assert_eq!((codes(&loaded).len(), loaded.resources.len()), (0, 1));
    assert_eq!(loaded.resources.authorization_policies[0].rules[0].to[0].paths.len(), 100_000);
}

#[test]
fn a_policy_of_a_million_rules_gets_one_error() {
    for rule in ["  - {}\n", "  - a\n"] {
        let loaded = one(format!("{POLICY}{}", rule.repeat(1_000_000)));
        assert_eq!((codes(&loaded), loaded.diagnostics.len(), loaded.refused), (vec!["PAL0011"], 1, 1));
    }
    for rules in [513, 100_000] {
        let loaded = one(format!("{POLICY}{}", "  - {}\n".repeat(rules)));
        assert_eq!((codes(&loaded), loaded.diagnostics.len(), loaded.refused), (vec!["PAL0112"], 1, 1));
    }
    assert!(one(format!("{POLICY}{}", "  - {}\n".repeat(512))).diagnostics.is_empty());
    let tokens = |rules: usize| codes(&one(format!("{TOKENS}{}", "  - {issuer: https://a}\n".repeat(rules))));
    assert_eq!((tokens(4096), tokens(4097)), (vec![], vec!["PAL0112"]));
}

/// A NUL ends the text for the parser: what stands behind it would be reported as missing.
#[test]
fn a_nul_is_named_where_it_stands() {
    for (text, line, column) in
        [("a: \"x\0y\"\n", 1, 6), ("a: 1\nb: \0\n", 2, 4), ("# \u{e4}\0", 1, 4), ("a: 'x\n\0", 2, 1)]
    {
        let loaded = one(text.to_owned());
        let [found] = &loaded.diagnostics[..] else { panic!("{text:?}: {:?}", codes(&loaded)) };
        assert_eq!((found.code, found.line, found.column), ("PAL0001", line, column), "{text:?}");
        assert_eq!(found.message, "a NUL character, which no YAML may have");
    }
}

/// Documents that are small and stand for much: each is within its own bounds, all together are not.
#[test]
fn values_are_bounded_over_all_documents() {
    let copies = format!("apiVersion: apps/v1\nkind: X\na: &a [{}]\nb: [{}]\n", "x,".repeat(4900), "*a,".repeat(19));
    let per_text = format!("---\n{copies}").repeat(40);
    let texts: Vec<_> = ["a", "b", "c", "d"].map(|name| SourceText::new(name, per_text.as_str())).into();
    let loaded = load(&texts, "default");
    let found: Vec<_> = loaded.diagnostics.iter().map(|found| (found.code, &*found.file, found.line)).collect();
    // A document has 4,900 values, 98,000 copies of them and some more, of which 98,000 are texts in lists and count as
    // four: the 32nd is one too many.
    assert_eq!(found, [("PAL0013", "a", 157), ("PAL0013", "b", 1), ("PAL0013", "c", 1), ("PAL0013", "d", 1)]);
    assert_eq!((loaded.skipped, loaded.refused), (31, 160 - 31));
    assert!(loaded.diagnostics[0].message.ends_with(": 9 documents from here on not read"));
    assert_eq!(MAX_TOTAL_VALUES / 397_000, 31);
}

/// A million rules, where the build is optimised.
const POLICIES: usize = if cfg!(debug_assertions) { 200 } else { 2000 };

#[test]
fn many_policies_of_many_rules_load() {
    let rules = "  - to: [{operation: {paths: [/a]}}]\n".repeat(500);
    let named = |number| POLICY.replace("name: p", &format!("name: p{number}"));
    let text: String = (0..POLICIES).map(|number| format!("---\n{}{rules}", named(number))).collect();
    // No more than is read at once.
    let texts: Vec<_> = text.split_inclusive("---\n").collect();
    let texts: Vec<_> = texts.chunks(200).map(|texts| SourceText::new("f", texts.concat())).collect();
    let loaded = load(&texts, "default");
    assert_eq!((loaded.diagnostics.len(), loaded.resources.len()), (0, POLICIES));
    let rules: usize = loaded.resources.authorization_policies.iter().map(|policy| policy.rules.len()).sum();
    assert_eq!(rules, POLICIES * 500);
}

#[test]
fn aliases_cannot_laugh() {
    let level = |level: usize| format!("l{level}: &l{level} [{}]\n", vec![format!("*l{}", level - 1); 10].join(", "));
    let laughs: String = (1..10).map(level).collect();
    assert_eq!(codes(&one(format!("l0: &l0 [lol]\n{laughs}"))), ["PAL0004"]);
    let merge =
        |level: usize| format!("m{level}: &m{level} {{<<: [*m{0}, *m{0}], k{level}: [*m{0}, *m{0}]}}\n", level - 1);
    let merges: String = (1..40).map(merge).collect();
    assert_eq!(codes(&one(format!("m0: &m0 {{k: v}}\n{merges}"))), ["PAL0004"]);
    assert_eq!(codes(&one("- &a x\n".to_owned() + &"- *a\n".repeat(200_000))), ["PAL0004"]);
    assert_eq!(codes(&one((0..200_000).map(|n| format!("- &a{n} x\n")).collect())), ["PAL0004"]);
    assert_eq!(codes(&one("&a [".repeat(60) + &"x,".repeat(100_000) + &"]".repeat(60))), ["PAL0004"]);
    assert_eq!(codes(&one("a: &a [*a]\n".to_owned())), ["PAL0004"]);
    assert_eq!(codes(&one("a: *nobody\n".to_owned())), ["PAL0001"]);
}

#[test]
fn deep_nesting_is_refused_in_every_style() {
    for open in ["[", "{a: ", "- ", "? ", "[{a: ", "- ? "] {
        let loaded = one(open.repeat(100_000));
        assert_eq!(codes(&loaded), ["PAL0003"], "{open}: {:?}", loaded.diagnostics);
        assert_eq!(loaded.diagnostics[0].message, "nested deeper than 64 levels");
    }
    let blocks: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(codes(&one(blocks)), ["PAL0003"]);
    let json = format!("{TOKENS}  - {{issuer: a, jwks: '{}'}}\n", "[".repeat(100_000));
    assert_eq!(codes(&one(json)), ["PAL0314"], "the JSON within is bounded, too");
}

#[test]
fn unknown_and_repeated_fields_end_the_findings_not_the_reading() {
    let fields: String = (0..50_000).map(|number| format!("principels{number}: 1\n")).collect();
    assert_eq!(codes(&one(format!("{POLICY}  - {{}}\n{fields}"))), ["PAL0101", "PAL0010"]);
    let keys = "{key: source.principel, values: [a]},".repeat(20_000);
    assert_eq!(codes(&one(format!("{POLICY}  - when: [{keys}]\n"))), ["PAL0220", "PAL0010"]);
    let twice = "  - {}\n".to_owned() + &"kind: AuthorizationPolicy\n".repeat(50_000);
    assert_eq!(codes(&one(format!("{POLICY}{twice}"))), ["PAL0006", "PAL0010"]);
    let modes: String =
        (0..3000).map(|n| format!("---\n{}", POLICY.replace("rules:", &format!("action: D{n}")))).collect();
    let loaded = one(modes);
    assert_eq!((codes(&loaded), loaded.refused), (vec!["PAL0106", "PAL0010"], 3000));
    assert_eq!(codes(&one("---\n{}\n".repeat(100_000))), ["PAL0105", "PAL0010"]);
}

#[test]
fn a_list_counts_as_its_items() {
    let items = "- {apiVersion: apps/v1, kind: X}\n".repeat(150_000);
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{items}---\n");
    let loaded = load(&[SourceText::new("a", list.as_str()), SourceText::new("b", list)], "default");
    let [found] = &loaded.diagnostics[..] else { panic!("{:?}", codes(&loaded)) };
    assert_eq!((found.code, &*found.file, found.line), ("PAL0005", "b", 50_001));
    assert!(found.message.ends_with(": 100003 documents from here on not read"), "{}", found.message);
}

/// What costs more to decide with counts as more: within the bound stand fewer templates than paths.
#[test]
fn a_template_counts_by_its_segments() {
    let document = |number: usize, path: &str| {
        let name = POLICY.replace("name: p", &format!("name: p{number}"));
        let paths = format!("'{path}',").repeat(10_000);
        format!("---\n{name}  - to: [{{operation: {{paths: [{paths}]}}}}]\n")
    };
    // One value, three as a text in a list, and three for each of 40 slashes.
    for (path, read) in [("/a".repeat(40), 12), ("/{*}".repeat(40), 12_500_000 / 1_240_000)] {
        let texts: Vec<_> = (0..12).map(|number| SourceText::new("f", document(number, &path))).collect();
        let loaded = load(&texts, "default");
        assert_eq!((loaded.resources.len(), loaded.refused), (read, 12 - read), "{path}");
    }
}

#[test]
fn bytes_that_are_no_text_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.yaml");
    for (bytes, offset) in [(&b"a: \xff"[..], 3), (b"\xfe\xffa", 0), (b"a: \xed\xa0\x80", 3), (b"\xc0\x80", 0)] {
        fs::write(&file, bytes).unwrap();
        match read_paths(std::slice::from_ref(&file)) {
            Err(ReadError::NotUtf8 { offset: found, line: 1, .. }) => assert_eq!(found, offset),
            other => panic!("{other:?}"),
        }
    }
    let mut long = POLICY.repeat(2000).into_bytes();
    long.push(0x80);
    fs::write(&file, &long).unwrap();
    match read_paths(&[file]) {
        Err(ReadError::NotUtf8 { offset, line, .. }) => assert_eq!((offset, line), (long.len() - 1, 10_001)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn private_keys_are_never_shown() {
    let key = "{\"kty\": \"RSA\", \"n\": \"modulus\", \"e\": \"AQAB\", \"d\": \"private-part\"}";
    for jwks in [format!("{{\"keys\": [{key}]}}"), format!("{{\"keys\": [{key}"), key.to_owned(), format!("[{key}]")] {
        let loaded = one(format!("{TOKENS}  - {{issuer: a, jwks: '{jwks}'}}\n"));
        assert_eq!(loaded.diagnostics.len(), 1 + usize::from(jwks == key), "{jwks}");
        let shown = format!("{:?} {loaded:?}", loaded.diagnostics);
        assert!(!shown.contains("private-part"), "{shown}");
    }
}
