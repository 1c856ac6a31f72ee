use super::*;
use crate::fixtures::{Authority, START, domain};

const ID: &str = "spiffe://a.test/ns/web/sa/front";

fn opened() -> (tempfile::TempDir, Storage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&dir.path().join("agent/state")).unwrap();
    (dir, storage)
}

fn content(storage: &Storage) -> DecodeIdentityError {
    match storage.load(&domain()) {
        Err(LoadIdentityError::Content { source, .. }) => source,
        other => panic!("expected a content error, got {}", other.is_ok()),
    }
}

#[test]
fn what_is_stored_comes_back() {
    let (_dir, storage) = opened();
    assert!(storage.load(&domain()).unwrap().is_none());
    let identity = Authority::new("a").identity(ID);
    storage.save(&identity).unwrap();
    let loaded = storage.load(&domain()).unwrap().unwrap();
    assert_eq!(loaded.svid.chain(), identity.svid.chain());
    assert_eq!(loaded.svid.key().as_pkcs8_der(), identity.svid.key().as_pkcs8_der());
    assert_eq!(loaded.bundles.get("a.test").unwrap().digest(), identity.bundles.get("a.test").unwrap().digest());
}

#[test]
fn a_newer_one_replaces_it_and_leaves_nothing_behind() {
    let (_dir, storage) = opened();
    let authority = Authority::new("a");
    storage.save(&authority.identity(ID)).unwrap();
    let second = authority.identity(ID);
    storage.save(&second).unwrap();
    let loaded = storage.load(&domain()).unwrap().unwrap();
    assert_eq!(loaded.svid.serial(), second.svid.serial());
    let names: Vec<_> = fs::read_dir(&storage.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [FILE]);
}

#[test]
fn trap_36_only_the_owner_can_read() {
    let (_dir, storage) = opened();
    storage.save(&Authority::new("a").identity(ID)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&storage.dir), 0o700);
    assert_eq!(mode(&storage.dir.join(FILE)), 0o600);
    fs::set_permissions(storage.dir.join(FILE), Permissions::from_mode(0o644)).unwrap();
    storage.load(&domain()).unwrap();
    assert_eq!(mode(&storage.dir.join(FILE)), 0o600);
}

#[test]
fn an_expired_identity_is_still_read() {
    let (_dir, storage) = opened();
    storage.save(&Authority::new("a").identity_between(ID, START - 100, START - 50)).unwrap();
    assert_eq!(storage.load(&domain()).unwrap().unwrap().svid.id().as_str(), ID);
}

#[test]
fn a_newer_format_is_named_whatever_else_it_holds() {
    let (_dir, storage) = opened();
    fs::write(storage.dir.join(FILE), r#"{"format": 2, "sealed": true}"#).unwrap();
    assert_eq!(content(&storage).to_string(), "format 2 is newer than this agent, which reads up to 1");
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let (_dir, storage) = opened();
    storage.save(&Authority::new("a").identity(ID)).unwrap();
    let path = storage.dir.join(FILE);
    let good = fs::read_to_string(&path).unwrap();
    for length in (0..good.len()).step_by(37) {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(content(&storage), DecodeIdentityError::Damaged(_)), "cut at {length}");
    }
    fs::write(&path, good.replace("PRIVATE KEY", "PUBLIC KEY")).unwrap();
    assert!(matches!(content(&storage), DecodeIdentityError::Part { part: "private key", .. }));
    fs::write(&path, good.replacen("CERTIFICATE", "NOTHING", 2)).unwrap();
    assert!(matches!(content(&storage), DecodeIdentityError::Part { part: "certificate chain", .. }));
    fs::write(&path, good.replace("\"a.test\"", "\"A.test\"")).unwrap();
    assert!(matches!(content(&storage), DecodeIdentityError::Part { part: "trust domain", .. }));
    fs::write(&path, good.replace("\"a.test\"", "\"b.test\"")).unwrap();
    assert!(matches!(content(&storage), DecodeIdentityError::NoBundle));
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(matches!(storage.load(&domain()), Err(LoadIdentityError::Damaged { .. })));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (_dir, storage) = opened();
    let authority = Authority::new("a");
    let (one, two) = (authority.identity(ID), authority.identity(ID));
    storage.save(&one).unwrap();
    let path = storage.dir.join(FILE);
    let key = |identity: &Identity| identity.svid.key().to_pem().replace('\n', "\\n");
    let mixed = fs::read_to_string(&path).unwrap().replace(&key(&one), &key(&two));
    fs::write(&path, mixed).unwrap();
    assert!(matches!(content(&storage), DecodeIdentityError::Part { part: "certificate", .. }));
}

#[test]
fn another_trust_domain_is_named() {
    let (_dir, storage) = opened();
    storage.save(&Authority::new("a").identity(ID)).unwrap();
    let other = TrustDomain::parse("b.test").unwrap();
    let Err(LoadIdentityError::Content { source, .. }) = storage.load(&other) else { panic!("loaded") };
    assert_eq!(source.to_string(), "it is of trust domain `a.test`, not `b.test`");
}

#[test]
fn a_directory_that_others_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Storage::open(dir.path()), Err(OpenStorageError::Shared { mode: 0o777, .. })));
}

#[test]
fn an_unwritable_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = Storage::open(&file.join("state")).unwrap_err();
    assert!(matches!(&error, OpenStorageError::Unwritable { .. }));
    assert!(error.to_string().contains("file/state"), "{error}");
}

#[test]
fn a_state_that_is_no_news_is_not_written_again() {
    use std::os::unix::fs::MetadataExt;
    let (_dir, storage) = opened();
    let denied = |serials: &[&str]| serials.iter().map(|&serial| serial.to_owned()).collect::<BTreeSet<String>>();
    // Each write makes a new file.
    let save = |serials: &[&str]| {
        storage.save_state(&State::default(), &denied(serials)).unwrap();
        fs::metadata(storage.dir.join(STATE)).unwrap().ino()
    };
    let first = save(&["ab"]);
    let kept = File::open(storage.dir.join(STATE)).unwrap();
    assert_eq!(save(&["ab"]), first);
    assert_ne!(save(&["ab", "cd"]), first);
    drop(kept);
    assert_eq!(storage.load_state(&domain()).unwrap().denied, ["ab", "cd"]);
}
