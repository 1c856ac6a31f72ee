//! The agent as a follower of the server.

use palisade_identity::TrustBundle;

use super::*;

async fn following() -> (Scripted, Home, Running) {
    let scripted = Scripted::with_agents(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let authority = scripted.authority.clone();
    scripted.tell(&[&authority], |_| {});
    let home = Home::pinned(&scripted);
    let running = Running::start(home.agent());
    running.until_ready().await;
    (scripted, home, running)
}

fn digest(agent: &Agent) -> String {
    let current = agent.current().unwrap();
    let digest = current.bundles.get("a.test").map(TrustBundle::digest).unwrap();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Trap 28: a trust anchor more is no reason to renew anything.
#[tokio::test]
async fn trap_28_a_new_trust_anchor_is_installed_and_reported_and_renews_nothing() {
    let (scripted, home, running) = following().await;
    let first = running.agent.current().unwrap();
    running
        .until("reported", |agent| scripted.reports().last().is_some_and(|r| r.bundle_digest == digest(agent)))
        .await;
    let (ours, other) = (scripted.authority.clone(), Authority::new("next"));
    scripted.tell(&[&ours, &other], |_| {});
    running
        .until("two", |agent| agent.current().unwrap().bundles.get("a.test").unwrap().authorities().len() == 2)
        .await;
    let installed = digest(&running.agent);
    running.until("reported", |_| scripted.reports().last().is_some_and(|r| r.bundle_digest == installed)).await;
    assert_eq!(running.agent.current().unwrap().svid.serial(), first.svid.serial());
    assert_eq!(scripted.seen().len(), 1, "no certificate was asked for");
    running.stop().await;
    scripted.stop().await;
    assert_eq!(digest(&home.agent()), installed, "a restart without the server has it too");
}

/// Trap 45: no keys mean that no token is trusted, and not that nothing has changed.
#[tokio::test]
async fn trap_45_a_key_set_without_keys_takes_the_place_of_the_one_before() {
    let (scripted, home, running) = following().await;
    let authority = scripted.authority.clone();
    let known = |agent: &Agent| agent.inner.roster.now().jwks.get("a.test").cloned().unwrap_or_default();
    for keys in [r#"{"keys":[{"kty":"EC"}],"spiffe_sequence":18446744073709551615}"#, r#"{"keys":[]}"#] {
        scripted.tell(&[&authority], |state| state.bundle.as_mut().unwrap().jwt_jwks = keys.to_owned());
        running.until("the keys", |agent| known(agent) == keys).await;
    }
    running.stop().await;
    scripted.stop().await;
    assert_eq!(known(&home.agent()), r#"{"keys":[]}"#, "after a restart without the server too");
}

#[tokio::test]
async fn denied_serial_numbers_are_in_force_and_survive_a_restart_and_a_renewal() {
    let (scripted, home, running) = following().await;
    let authority = scripted.authority.clone();
    scripted.tell(&[&authority], |state| state.denied_serials = vec!["abcd".to_owned()]);
    running.until("denied", |agent| agent.current().unwrap().bundles.denies("abcd")).await;
    let serial = running.agent.current().unwrap().svid.serial().to_owned();
    running.agent.renew_now();
    running.until("renewed", |agent| agent.current().unwrap().svid.serial() != serial).await;
    assert!(running.agent.current().unwrap().bundles.denies("abcd"));
    running.stop().await;
    scripted.stop().await;
    assert!(home.agent().current().unwrap().bundles.denies("abcd"));
}

#[tokio::test]
async fn a_tainted_authority_costs_its_leaf_at_once_and_once() {
    let (scripted, _home, running) = following().await;
    let first = running.agent.current().unwrap();
    let tainted = crate::roster::issuers(first.svid.chain());
    let authority = scripted.authority.clone();
    scripted.tell(&[&authority], |state| state.tainted_authorities = tainted.clone());
    running.until("renewed", |agent| agent.current().unwrap().svid.serial() != first.svid.serial()).await;
    // The double signs with the same authority again. Another state with the same taint is no news.
    let second = running.agent.current().unwrap();
    let reported = scripted.reports().len();
    scripted.tell(&[&authority], |state| state.denied_serials = vec!["ff".to_owned()]);
    running.until("the next state", |agent| agent.current().unwrap().bundles.denies("ff")).await;
    running.until("reported", |_| scripted.reports().len() > reported).await;
    assert_eq!(running.agent.current().unwrap().svid.serial(), second.svid.serial());
    assert_eq!(scripted.seen().len(), 2);
    running.stop().await;
    scripted.stop().await;
}

/// Both write to the disk before they are in use, and here it hangs until both have come.
#[test]
fn a_renewal_and_a_new_state_at_once_do_not_undo_each_other() {
    let one_thread =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    one_thread.block_on(async {
        let (scripted, home, running) = following().await;
        let (authority, first) = (scripted.authority.clone(), running.agent.current().unwrap());
        running.until("kept", |_| home.config.state_dir.join("state.json").exists()).await;
        let (works_again, hangs) = std::sync::mpsc::channel::<()>();
        let disk = tokio::task::spawn_blocking(move || hangs.recv());
        running.agent.renew_now();
        running.until("asked", |_| scripted.seen().len() == 2).await;
        scripted.tell(&[&authority], |state| {
            state.denied_serials = vec!["abcd".to_owned()];
            state.bundle.as_mut().unwrap().jwt_jwks = "{}".to_owned();
        });
        running
            .until("heard", |agent| agent.inner.roster.now().jwks.get("a.test").is_some_and(|keys| keys == "{}"))
            .await;
        works_again.send(()).unwrap();
        disk.await.unwrap().unwrap();
        let both = |agent: &Agent| {
            let current = agent.current().unwrap();
            current.svid.serial() != first.svid.serial() && current.bundles.denies("abcd")
        };
        running.until("both", both).await;
        // What the server said is written down after it is in use.
        let kept = || std::fs::read_to_string(home.config.state_dir.join("state.json")).unwrap();
        running.until("written", |_| kept().contains("abcd")).await;
        running.stop().await;
        scripted.stop().await;
        assert!(both(&home.agent()), "on disk too");
    });
}

#[tokio::test]
async fn a_state_that_cannot_be_used_is_reported_and_changes_nothing() {
    let (scripted, _home, running) = following().await;
    let before = digest(&running.agent);
    scripted.tell(&[], |state| state.denied_serials = vec!["ab".to_owned()]);
    running
        .until("rejected", |_| scripted.reports().last().is_some_and(|r| r.rejected.contains("no certificate")))
        .await;
    assert_eq!(digest(&running.agent), before);
    assert!(!running.agent.current().unwrap().bundles.denies("ab"), "no half of it either");
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn a_root_is_not_acknowledged_while_the_files_of_an_application_cannot_hold_it() {
    let scripted = Scripted::with_agents(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let (ours, other) = (scripted.authority.clone(), Authority::new("next"));
    scripted.tell(&[&ours], |_| {});
    let mut home = Home::pinned(&scripted);
    let (dir, owner, on_change) = (home.dir.path().join("out"), None, None);
    home.config.files = vec![FilesConfig { dir: dir.clone(), spiffe_id: None, owner, key_mode: 0o600, on_change }];
    let running = Running::start(home.agent());
    running.until_ready().await;
    let old = digest(&running.agent);
    let reported = |digest: &str, rejected: &str| {
        let last = scripted.reports().pop();
        last.is_some_and(|last| last.bundle_digest == digest && last.rejected.starts_with(rejected))
    };
    running.until("written", |_| reported(&old, "") && dir.join("bundle.pem").exists()).await;
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "no directory").unwrap();
    scripted.tell(&[&ours, &other], |_| {});
    running.until("refused", |_| reported(&old, "the identity files in")).await;
    std::fs::remove_file(&dir).unwrap();
    scripted.tell(&[&ours, &other], |state| state.denied_serials = vec!["ab".to_owned()]);
    running.until("written", |agent| digest(agent) != old && reported(&digest(agent), "")).await;
    let bundle = std::fs::read_to_string(dir.join("bundle.pem")).unwrap();
    assert_eq!(bundle.matches("BEGIN").count(), 2);
    assert_eq!(scripted.reports().pop().unwrap().rejected, "");
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_is_followed_again() {
    let (scripted, _home, running) = following().await;
    running.until("followed", |_| !scripted.reports().is_empty()).await;
    let (address, authority) = (scripted.address.to_string(), scripted.authority.clone());
    scripted.stop().await;
    let again = Scripted::serve(&address, authority.clone(), Behaviour::Issue(ID, 3600), true).await;
    again.tell(&[&authority], |state| state.denied_serials = vec!["ef".to_owned()]);
    running.until("followed again", |agent| agent.current().unwrap().bundles.denies("ef")).await;
    running.stop().await;
    again.stop().await;
}

#[tokio::test]
async fn an_older_server_is_no_failure() {
    let scripted = Scripted::start(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let home = Home::pinned(&scripted);
    let running = Running::start(home.agent());
    running.until_ready().await;
    running.until("an answer", |agent| agent.inner.roster.now().entries.is_some()).await;
    assert_eq!(running.agent.health().last_error, None);
    running.until("kept", |_| home.config.state_dir.join("state.json").exists()).await;
    running.stop().await;
    scripted.stop().await;
    assert!(home.agent().inner.roster.now().entries.is_some(), "a restart does not wait for the server");
}

/// Whoever is revoked hears it from the refusal alone, and is not well until it has another certificate.
#[tokio::test]
async fn an_agent_whose_own_certificate_is_revoked_is_not_ready_until_it_has_another() {
    let authority = Arc::new(Authority::new("a"));
    let scripted = Scripted::with_agents(authority.clone(), Behaviour::Issue(ID, 3600)).await;
    let mut home = Home::pinned(&scripted);
    let running = Running::start(home.agent());
    let first = running.until_ready().await;
    scripted.tell(&[&authority], |state| state.denied_serials = vec!["ab".to_owned()]);
    running.until("followed", |agent| agent.current().unwrap().bundles.denies("ab")).await;
    // Its token is spent.
    scripted.behave(Behaviour::Refuse(Code::Unauthenticated));
    scripted.agents().revoked.send_modify(|revoked| revoked.push(first.svid.serial().to_owned()));
    running.until("not ready", |agent| !*agent.readiness().borrow()).await;
    let state = running.agent.health().identity;
    assert!(matches!(&state, IdentityState::Revoked { serial, .. } if serial == first.svid.serial()), "{state}");
    assert!(running.agent.current().unwrap().bundles.denies("ab"), "the others are denied as before");
    running.stop().await;
    // It is so after a restart too, and well again with a new token.
    assert!(matches!(home.agent().health().identity, IdentityState::Revoked { .. }));
    home.config.join_token = Some(JoinTokenSource::Inline(token(&authority)));
    scripted.behave(Behaviour::Issue(ID, 3600));
    let running = Running::start(home.agent());
    let second = running.until_ready().await;
    assert_ne!(second.svid.serial(), first.svid.serial());
    running.stop().await;
    scripted.stop().await;
}
