use palisade_wire::envoy::google::protobuf::Any;

use super::*;

fn resource(change: impl FnOnce(&mut control::Snapshot)) -> xds::Resource {
    let text = SourceText { file: "a.yaml".into(), first_line: 1, text: "kind: A".into() };
    let good = RawSnapshot::new(vec![text], None);
    let mut message = control::Snapshot {
        revision: good.revision.clone(),
        documents: vec![control::Document { file: "a.yaml".into(), first_line: 1, text: "kind: A".into() }],
        mesh: None,
    };
    change(&mut message);
    xds::Resource {
        name: "shop/cart-0".into(),
        version: good.revision,
        resource: Some(Any { type_url: SNAPSHOT_TYPE_URL.into(), value: message.encode_to_vec() }),
        ..Default::default()
    }
}

#[test]
fn a_whole_snapshot_is_read() {
    let snapshot = decode(resource(|_| {})).expect("good");
    assert_eq!(&*snapshot.documents[0].text, "kind: A");
}

#[test]
fn content_that_is_not_its_revisions_is_refused() {
    assert!(decode(resource(|message| message.documents.clear())).is_err());
    assert!(decode(resource(|message| message.documents[0].text.push('B'))).is_err());
    assert!(decode(resource(|message| message.revision = "else".into())).is_err());
    let mut renamed = resource(|_| {});
    renamed.version = "else".into();
    assert!(decode(renamed).is_err());
}

#[test]
fn other_types_and_garbage_are_refused() {
    let mut empty = resource(|_| {});
    empty.resource = None;
    assert!(decode(empty).is_err());
    let any = |type_url: &str, value: &[u8]| xds::Resource {
        resource: Some(Any { type_url: type_url.into(), value: value.to_vec() }),
        ..Default::default()
    };
    assert!(decode(any("type.googleapis.com/other", b"")).unwrap_err().contains("other"));
    assert!(decode(any(SNAPSHOT_TYPE_URL, b"\xff\xff\xff")).is_err());
}
