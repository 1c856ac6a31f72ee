use std::fs;
use std::time::Duration;

use super::*;

fn policy(name: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{}}\n"
    )
}

async fn until(snapshots: &mut watch::Receiver<Option<Arc<RawSnapshot>>>, name: &str) {
    let holds = |snapshot: &Option<Arc<RawSnapshot>>| {
        snapshot.as_ref().is_some_and(|snapshot| snapshot.documents.iter().any(|text| text.text.contains(name)))
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), snapshots.wait_for(holds)).await.is_ok();
    assert!(waited, "no snapshot with {name}; last: {:?}", snapshots.borrow());
}

#[tokio::test]
async fn what_the_proxy_refuses_or_the_check_refuses_never_replaces_what_is_in_use() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("a.yaml");
    fs::write(&file, policy("first")).expect("write");
    let (seen, mut offered) = watch::channel(Vec::new());
    let apply: Apply = Arc::new(move |snapshot| {
        let text = snapshot.documents.iter().map(|text| text.text.to_string()).collect::<String>();
        let refuse = text.contains("unwanted");
        seen.send_modify(|all| all.push(text));
        if refuse { Err("cannot compile".to_owned()) } else { Ok(()) }
    });
    let source = DirectorySource::new(DirectoryConfig::new(dir.path()), apply, &mut Registry::default());
    let mut snapshots = source.snapshots();
    let mut state = source.state();
    assert!(snapshots.borrow().is_some(), "in use before anything runs");
    let stop = CancellationToken::new();
    let task = tokio::spawn(source.run(stop.clone()));

    fs::write(&file, policy("unwanted")).expect("write");
    let asked = |all: &Vec<String>| all.iter().any(|text| text.contains("unwanted"));
    // The guards must be gone before anybody sends: only whether they came is kept.
    let read = tokio::time::timeout(Duration::from_secs(20), offered.wait_for(asked)).await.is_ok();
    assert!(read, "the proxy was not asked");
    fs::write(&file, "kind: [").expect("write");
    let broken =
        tokio::time::timeout(Duration::from_secs(20), state.wait_for(|state| state.problem.is_some())).await.is_ok();
    assert!(broken, "breakage not noticed");
    until(&mut snapshots, "first").await;

    fs::write(&file, policy("second")).expect("write");
    until(&mut snapshots, "second").await;
    stop.cancel();
    task.await.expect("stops");
}
