use super::*;

fn names(headers: &[HeaderValueOption]) -> Vec<(String, String, i32)> {
    headers
        .iter()
        .map(|option| {
            let header = option.header.clone().unwrap();
            (header.key, header.value, option.append_action)
        })
        .collect()
}

fn field(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}

/// Envoy removes last: what is set must not stand among what is removed.
#[test]
fn removal_never_undoes_what_is_set() {
    let edits = Edits {
        remove: vec!["authorization".into(), "x-claim".into(), "x-list".into()],
        set: vec![field("x-claim", "a"), field("x-list", "1,2")],
        ..Edits::default()
    };
    let ok = ok(&edits, &ResponseEdits::default(), None);
    assert_eq!(ok.headers_to_remove, ["authorization"]);
    let set: i32 = HeaderAppendAction::OverwriteIfExistsOrAdd.into();
    let expected = [("x-claim".to_owned(), "a".to_owned(), set), ("x-list".to_owned(), "1,2".to_owned(), set)];
    assert_eq!(names(&ok.headers), expected);
}

#[test]
fn a_changed_query_is_told_by_its_parameters_and_anything_else_as_a_path() {
    for (from, to, removed) in [
        ("/a?access_token=x", "/a", Some(vec!["access_token"])),
        ("/a?b=1&t=x&c", "/a?b=1&c", Some(vec!["t"])),
        ("/a?t=x&t=y&b", "/a?b", Some(vec!["t"])),
        ("/a?t=x&b&t=y", "/a?b&t=y", None),
        ("/a?b=1", "/b?b=1", None),
        ("/a?b=1", "/a?b=2", None),
        ("/a", "/a", None),
    ] {
        let removed = removed.map(|names| names.into_iter().map(str::to_owned).collect());
        assert_eq!(removed_parameters(from, to), removed, "{from} {to}");
    }
    let edits = Edits { target: Some("/b".into()), method: Some("PUT".into()), ..Edits::default() };
    let ok = ok(&edits, &ResponseEdits::default(), Some("/a"));
    let set: i32 = HeaderAppendAction::OverwriteIfExistsOrAdd.into();
    assert_eq!(names(&ok.headers), [(":path".into(), "/b".into(), set), (":method".into(), "PUT".into(), set)]);
    assert!(ok.query_parameters_to_remove.is_empty());
}
