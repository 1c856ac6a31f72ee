use std::os::unix::fs::MetadataExt;

use super::*;
use crate::fixtures::Authority;

const ID: &str = "spiffe://a.test/web";

fn config(dir: &Path) -> FilesConfig {
    FilesConfig { dir: dir.join("out"), spiffe_id: None, owner: None, key_mode: 0o640, on_change: None }
}

fn text(config: &FilesConfig, name: &str) -> String {
    fs::read_to_string(config.dir.join(name)).unwrap()
}

#[test]
fn trap_33_the_three_files_are_one_identity_and_change_together() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let authority = Authority::new("a");
    let (first, second) = (authority.identity(ID), authority.identity(ID));
    assert!(write(&config, &first.svid, &first.bundles).unwrap());
    assert!(!write(&config, &first.svid, &first.bundles).unwrap(), "nothing to do");
    // A reader that opened the version before still sees a whole one.
    let old = config.dir.join(fs::read_link(config.dir.join(DATA)).unwrap());
    assert!(write(&config, &second.svid, &second.bundles).unwrap());
    assert_eq!(fs::read_to_string(old.join(CERTIFICATE_FILE)).unwrap(), first.svid.chain_pem());
    assert_eq!(text(&config, CERTIFICATE_FILE), second.svid.chain_pem());
    assert_eq!(text(&config, KEY_FILE), *second.svid.key().to_pem());
    assert_eq!(text(&config, BUNDLE_FILE), authority.bundle().to_pem());
    let third = authority.identity(ID);
    assert!(write(&config, &third.svid, &third.bundles).unwrap());
    assert!(!old.exists(), "two versions are kept");
    assert_eq!(fs::read_dir(&config.dir).unwrap().count(), 6);
}

#[test]
fn modes_and_owner_are_as_asked_and_damage_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let root = user == 0;
    let owner = if root { (user + 4242, group + 4242) } else { (user, group) };
    let config = FilesConfig { owner: Some(owner), ..config(dir.path()) };
    let identity = Authority::new("a").identity(ID);
    assert!(write(&config, &identity.svid, &identity.bundles).unwrap());
    for (name, mode) in [(KEY_FILE, 0o640), (CERTIFICATE_FILE, 0o644), (BUNDLE_FILE, 0o644)] {
        let meta = fs::metadata(config.dir.join(name)).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid(), meta.gid()), (mode, owner.0, owner.1), "{name}");
    }
    fs::write(config.dir.join(CERTIFICATE_FILE), "damaged").unwrap();
    assert!(write(&config, &identity.svid, &identity.bundles).unwrap());
    assert_eq!(text(&config, CERTIFICATE_FILE), identity.svid.chain_pem());
}

#[tokio::test]
async fn a_change_runs_the_command_after_the_files_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("seen");
    let command = format!("cp \"$PALISADE_SVID_DIR/{CERTIFICATE_FILE}\" {0}.new && mv {0}.new {0}", out.display());
    let config = FilesConfig { on_change: Some(OnChange::Command(command)), ..config(dir.path()) };
    let identity = Authority::new("a").identity(ID);
    let (shutdown, changed) = (CancellationToken::new(), tokio::sync::watch::Sender::new(()));
    let (given, stop, wakes) = (identity.clone(), shutdown.clone(), changed.subscribe());
    let task = tokio::spawn(async move {
        keep(&config, || Some((given.svid.clone(), given.bundles.clone())), wakes, &stop).await;
    });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !out.exists() {
        assert!(tokio::time::Instant::now() < deadline, "the command has not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(fs::read_to_string(&out).unwrap(), identity.svid.chain_pem());
    shutdown.cancel();
    task.await.unwrap();
}

#[test]
fn a_hang_up_goes_to_a_process_and_never_to_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    for bad in ["", "x", "0", "1", "-1", "-17"] {
        fs::write(&path, bad).unwrap();
        assert_eq!(hang_up(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad}");
    }
    let mut child = std::process::Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    fs::write(&path, format!("{}\n", child.id())).unwrap();
    hang_up(&path).unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(1));
}
