use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use palisade_policies::SourceText;
use rustls_pki_types::UnixTime;

use super::*;

#[derive(Debug)]
struct Now;

impl Clock for Now {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

fn client(state: &Path, apply: Apply) -> Result<ControlClient, ClientError> {
    let nowhere: ChannelFactory = Arc::new(|| Err("no control plane in this test".into()));
    let config = ClientConfig::new("shop", "cart-0", state);
    ControlClient::new(config, nowhere, apply, Arc::new(Now), &mut Registry::default())
}

fn keep(state: &Path) -> RawSnapshot {
    let text = SourceText { file: "a.yaml".into(), first_line: 1, text: "kind: A".into() };
    let snapshot = RawSnapshot::new(vec![text], None);
    let store = Store::open(state, "shop/cart-0".to_owned()).expect("open");
    store.save(&snapshot, 1).expect("save");
    snapshot
}

#[test]
fn starts_with_what_it_kept() {
    let state = tempfile::tempdir().expect("temporary directory");
    let kept = keep(state.path());
    let client = client(state.path(), Arc::new(|_| Ok(()))).expect("client");
    assert_eq!(client.snapshots().borrow().as_ref().expect("a snapshot").revision, kept.revision);
    let status = client.status().borrow().clone();
    assert_eq!((status.revision, status.from_disk, status.connected), (Some(kept.revision), true, false));
}

#[test]
fn starts_without_what_the_proxy_cannot_use() {
    let state = tempfile::tempdir().expect("temporary directory");
    keep(state.path());
    let client = client(state.path(), Arc::new(|_| Err("cannot compile".to_owned()))).expect("client");
    assert!(client.snapshots().borrow().is_none());
    assert_eq!(*client.status().borrow(), ClientStatus::default());
}

#[test]
fn does_not_start_over_a_newer_releases_state() {
    let state = tempfile::tempdir().expect("temporary directory");
    let file = state.path().join("snapshot");
    fs::write(&file, "palisade-snapshot 9\n").expect("write");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
    let error = client(state.path(), Arc::new(|_| Ok(()))).err().expect("refused").to_string();
    for part in ["snapshot", "format 9", "up to 1"] {
        assert!(error.contains(part), "{part} missing in: {error}");
    }
}

#[tokio::test]
async fn says_why_it_is_not_connected_and_stops_when_told() {
    let state = tempfile::tempdir().expect("temporary directory");
    let client = client(state.path(), Arc::new(|_| Ok(()))).expect("client");
    let (mut status, stop) = (client.status(), CancellationToken::new());
    let task = tokio::spawn(client.run(stop.clone()));
    let told = |status: &ClientStatus| status.problem.as_ref().is_some_and(|reason| reason.contains("in this test"));
    let waited = tokio::time::timeout(Duration::from_secs(20), status.wait_for(told)).await.is_ok();
    assert!(waited, "last status: {:?}", *status.borrow());
    stop.cancel();
    task.await.expect("stops");
}
