use std::os::unix::fs::PermissionsExt;

use palisade_policies::SourceText;

use super::*;

fn snapshot(text: &str) -> RawSnapshot {
    let document = SourceText { file: "a.yaml".into(), first_line: 3, text: text.into() };
    let mesh = SourceText { file: "mesh.yaml".into(), first_line: 1, text: "rootNamespace: security".into() };
    RawSnapshot::new(vec![document], Some(mesh))
}

fn store(dir: &Path) -> Store {
    Store::open(&dir.join("state"), "shop/cart-0".to_owned()).expect("open")
}

fn file(dir: &Path) -> PathBuf {
    dir.join("state").join(FILE)
}

/// Writes what the store would have to refuse, with the mode that it asks for.
fn plant(dir: &Path, bytes: &[u8]) {
    fs::write(file(dir), bytes).expect("write");
    fs::set_permissions(file(dir), fs::Permissions::from_mode(0o600)).expect("chmod");
}

#[test]
fn comes_back_as_it_was_and_belongs_to_its_owner_only() {
    let dir = tempfile::tempdir().expect("dir");
    let store = store(dir.path());
    assert!(store.load().expect("load").is_none());
    store.save(&snapshot("first"), 1).expect("save");
    store.save(&snapshot("second"), 1_790_000_000).expect("save again");
    let kept = store.load().expect("load").expect("kept");
    assert_eq!(kept.saved, 1_790_000_000);
    assert_eq!(kept.snapshot.revision, snapshot("second").revision);
    assert_eq!(&*kept.snapshot.documents[0].text, "second");
    assert_eq!(kept.snapshot.documents[0].first_line, 3);
    assert_eq!(&*kept.snapshot.mesh.expect("mesh").file, "mesh.yaml");
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&file(dir.path())), 0o600);
    assert_eq!(mode(&dir.path().join("state")), 0o700);
    let left: Vec<_> = fs::read_dir(dir.path().join("state")).expect("list").collect();
    assert_eq!(left.len(), 1, "no temporary file stays: {left:?}");
}

#[test]
fn any_flipped_or_missing_byte_is_noticed() {
    let dir = tempfile::tempdir().expect("dir");
    let store = store(dir.path());
    store.save(&snapshot("policy"), 1).expect("save");
    let good = fs::read(file(dir.path())).expect("read");
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 1;
        plant(dir.path(), &bad);
        assert!(store.load().is_err(), "byte {position} flipped");
    }
    for length in 0..good.len() {
        plant(dir.path(), &good[..length]);
        assert!(store.load().is_err(), "cut to {length} bytes");
    }
}

#[test]
fn a_newer_format_is_named_and_not_overwritten_by_starting() {
    let dir = tempfile::tempdir().expect("dir");
    let store = store(dir.path());
    plant(dir.path(), b"palisade-snapshot 2\nanything\n");
    let error = store.load().expect_err("newer");
    assert!(matches!(&error, LoadError::Newer { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn what_others_could_write_or_what_is_of_another_workload_is_left_out() {
    let dir = tempfile::tempdir().expect("dir");
    let store = store(dir.path());
    store.save(&snapshot("policy"), 1).expect("save");
    let other = Store { node: "shop/cart-1".to_owned(), ..store.clone() };
    let error = other.load().expect_err("another workload").to_string();
    assert!(error.contains("of another workload"), "{error}");
    fs::set_permissions(file(dir.path()), fs::Permissions::from_mode(0o620)).expect("chmod");
    let error = store.load().expect_err("group may write").to_string();
    assert!(error.contains("mode is 620"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("state"), "a file").expect("write");
    let error = Store::open(&dir.path().join("state"), "shop/cart-0".to_owned()).expect_err("a file is in the way");
    assert!(error.to_string().contains("state"), "{error}");
}
