//! Certificates for entries.

use super::*;
use crate::fixtures::entry;
use crate::roster::State;

async fn started(home: &Home) -> Running {
    let running = Running::start(home.agent());
    running.until_ready().await;
    running
}

async fn supplied(count: usize) -> (Scripted, Home, Running) {
    let scripted = Scripted::with_agents(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let name = |number| format!("w{number:04}");
    scripted.entries((0..count).map(|number| entry(&name(number), &[&format!("unix:uid:{number}")])).collect());
    let home = Home::pinned(&scripted);
    let running = started(&home).await;
    (scripted, home, running)
}

fn state(agent: &Agent) -> Arc<State> {
    agent.inner.roster.now()
}

fn serial(agent: &Agent, entry: &str) -> Option<String> {
    state(agent).svids.get(entry).map(|held| held.svid.serial().to_owned())
}

#[tokio::test]
async fn every_entry_has_a_certificate_before_anybody_asks_and_after_a_restart_without_the_server() {
    let (scripted, home, running) = supplied(3).await;
    running.until("three", |agent| state(agent).svids.len() == 3).await;
    assert_eq!(scripted.batches(), [3], "one call");
    let of = |agent: &Agent| ["w0000", "w0001", "w0002"].map(|entry| serial(agent, entry).unwrap());
    let before = of(&running.agent);
    let files = || std::fs::read_dir(home.config.state_dir.join("svids")).map_or(0, Iterator::count);
    running.until("kept", |_| files() == 3).await;
    running.stop().await;
    scripted.stop().await;
    let again = home.agent();
    assert_eq!(of(&again), before);
    use std::os::unix::fs::PermissionsExt;
    for file in std::fs::read_dir(home.config.state_dir.join("svids")).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn batches_are_halved_until_they_pass() {
    let scripted = Scripted::with_agents(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    *scripted.agents().most.lock().unwrap() = 250;
    let name = |number| format!("w{number:04}");
    scripted.entries((0..600).map(|number| entry(&name(number), &["unix:uid:1"])).collect());
    let home = Home::pinned(&scripted);
    let running = started(&home).await;
    running.until("all", |agent| state(agent).svids.len() == 600).await;
    assert_eq!(&scripted.batches()[..2], [500, 250]);
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn a_removed_entry_is_withdrawn_and_its_key_leaves_the_disk() {
    let (scripted, home, running) = supplied(2).await;
    let files = || std::fs::read_dir(home.config.state_dir.join("svids")).map_or(0, Iterator::count);
    running.until("kept", |_| files() == 2).await;
    scripted.entries(vec![entry("w0001", &["unix:uid:1"])]);
    running.until("withdrawn", |agent| serial(agent, "w0000").is_none()).await;
    running.until("removed", |_| files() == 1).await;
    assert!(serial(&running.agent, "w0001").is_some());
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn one_refused_entry_delays_no_other() {
    let scripted = Scripted::with_agents(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    scripted.agents().refused.lock().unwrap().push("bad".to_owned());
    scripted.entries(vec![entry("bad", &["a:b"]), entry("good", &["a:b"])]);
    let home = Home::pinned(&scripted);
    let running = started(&home).await;
    running.until("the good one", |agent| serial(agent, "good").is_some()).await;
    assert!(serial(&running.agent, "bad").is_none());
    scripted.agents().refused.lock().unwrap().clear();
    running.until("the other one later", |agent| serial(agent, "bad").is_some()).await;
    running.stop().await;
    scripted.stop().await;
}

/// Trap 26: the old certificate stays until the new one is in hand.
#[tokio::test]
async fn trap_26_an_old_certificate_stays_until_the_new_one_is_in_hand() {
    let scripted = Scripted::with_agents(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    *scripted.agents().life.lock().unwrap() = 6;
    scripted.entries(vec![entry("w", &["a:b"])]);
    let home = Home::pinned(&scripted);
    let running = started(&home).await;
    running.until("the first", |agent| serial(agent, "w").is_some()).await;
    let first = serial(&running.agent, "w");
    scripted.agents().refused.lock().unwrap().push("w".to_owned());
    running.until("a refused renewal", |_| scripted.batches().len() >= 2).await;
    assert_eq!(serial(&running.agent, "w"), first);
    scripted.agents().refused.lock().unwrap().clear();
    running.until("the next", |agent| serial(agent, "w") != first).await;
    assert!(serial(&running.agent, "w").is_some());
    running.stop().await;
    scripted.stop().await;
}

/// Trap 14: a new certificate for the old key helps nobody whose key was stolen.
#[tokio::test]
async fn trap_14_a_tainted_authority_replaces_all_its_leaves_and_their_keys_at_once() {
    let (scripted, _home, running) = supplied(2).await;
    running.until("two", |agent| state(agent).svids.len() == 2).await;
    let keys = || -> Vec<_> { state(&running.agent).svids.values().map(|h| h.svid.key().public_key_der()).collect() };
    let mut all = keys();
    let first = serial(&running.agent, "w0000");
    let tainted = state(&running.agent).svids["w0000"].issuers.clone();
    let authority = scripted.authority.clone();
    scripted.tell(&[&authority], |state| state.tainted_authorities = tainted);
    running.until("replaced", |agent| serial(agent, "w0000") != first).await;
    all.extend(keys());
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "each has a key of its own");
    assert_eq!(scripted.batches(), [2, 2]);
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn the_servers_wish_when_to_renew_is_kept_if_it_can_be() {
    let scripted = Scripted::with_agents(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let wish = i64::try_from(now() + 77).unwrap();
    *scripted.agents().renew_at.lock().unwrap() = wish;
    scripted.entries(vec![entry("w", &["a:b"])]);
    let home = Home::pinned(&scripted);
    let running = started(&home).await;
    running.until("one", |agent| state(agent).svids.contains_key("w")).await;
    assert_eq!(state(&running.agent).svids["w"].due.as_secs(), u64::try_from(wish).unwrap());
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn calls_after_a_renewal_show_the_new_certificate() {
    let (scripted, _home, running) = supplied(1).await;
    running.until("one", |agent| state(agent).svids.len() == 1).await;
    let first = running.agent.current().unwrap().svid.serial().to_owned();
    running.agent.renew_now();
    running.until("renewed", |agent| agent.current().unwrap().svid.serial() != first).await;
    let second = running.agent.current().unwrap().svid.serial().to_owned();
    scripted.entries(vec![entry("w0000", &["unix:uid:0"]), entry("w0001", &["unix:uid:1"])]);
    running.until("two", |agent| state(agent).svids.len() == 2).await;
    assert_eq!(*scripted.agents().askers.lock().unwrap(), [first, second]);
    running.stop().await;
    scripted.stop().await;
}
