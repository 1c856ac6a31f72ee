use futures_util::FutureExt as _;
use palisade_policies::{SourceText, load};

use super::*;

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

async fn open(dir: &Path) -> Entries {
    let path = dir.join("ca.db");
    if !path.exists() {
        std::fs::write(&path, "").unwrap();
    }
    Entries::open(&path, domain()).await.unwrap()
}

fn wanted(id: &str, selectors: &[&str]) -> admin::RegistrationEntry {
    let selectors = selectors.iter().map(ToString::to_string).collect();
    admin::RegistrationEntry { spiffe_id: format!("spiffe://cluster.local/{id}"), selectors, ..Default::default() }
}

fn files(names: &[&str]) -> Vec<Arc<RegistrationEntry>> {
    let documents = names.iter().map(|name| {
        format!(
            "apiVersion: palisade.dev/v1\nkind: RegistrationEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{spiffeId: spiffe://cluster.local/{name}, selectors: ['k8s:ns:shop']}}\n---\n"
        )
    });
    let loaded = load(&[SourceText::new("entries.yaml", documents.collect::<String>())], "default");
    assert_eq!(loaded.diagnostics, []);
    loaded.resources.registration_entries
}

#[tokio::test]
async fn both_sources_are_one_map_and_every_change_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let entries = open(dir.path()).await;
    let mut told = entries.subscribe();
    entries.set_files(&files(&["a", "b"]));
    let made = entries.create(&wanted("c", &["unix:uid:1", "unix:gid:1", "unix:uid:1"])).await.unwrap();
    assert_eq!(made.selectors, ["unix:gid:1", "unix:uid:1"]);
    assert!(told.has_changed().unwrap());
    let ids: Vec<_> = told.borrow_and_update().keys().cloned().collect();
    let mut expected = vec![made.id.clone(), "shop/a".into(), "shop/b".into()];
    expected.sort();
    assert_eq!(ids, expected);
    entries.set_files(&files(&["a", "b"]));
    assert!(!told.has_changed().unwrap(), "the same again is no change");
    entries.set_files(&files(&["b"]));
    entries.delete(&made.id).await.unwrap();
    assert_eq!(told.borrow_and_update().keys().collect::<Vec<_>>(), ["shop/b"]);
    assert_eq!(entries.get("shop/b").unwrap().origin.as_deref(), Some("entries.yaml:1"));
    let refused = entries.delete("shop/b").await.unwrap_err().to_string();
    assert!(refused.contains("entries.yaml:1"), "{refused}");
    assert!(matches!(entries.delete(&made.id).await, Err(EntriesError::Unknown(_))));
}

/// Nothing would ever be given for it, and it must not keep the server from starting.
#[tokio::test]
async fn what_an_earlier_release_let_in_is_not_used_and_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await;
    let made = first.create(&wanted("web", &["k8s:ns:shop"])).await.unwrap();
    let pool = sqlx::sqlite::SqlitePool::connect(dir.path().join("ca.db").to_str().unwrap()).await.unwrap();
    let named = "UPDATE registration_entry SET entry = json_set(entry, '$.dns_names', json('[\"localhost\"]'))";
    sqlx::raw_sql(named).execute(&pool).await.unwrap();
    let second = open(dir.path()).await;
    assert!(second.get(&made.id).is_none());
    second.delete(&made.id).await.unwrap();
    assert!(matches!(second.delete(&made.id).await, Err(EntriesError::Unknown(_))));
    sqlx::raw_sql("INSERT INTO registration_entry VALUES ('x', 'no JSON')").execute(&pool).await.unwrap();
    let damaged = Entries::open(&dir.path().join("ca.db"), domain()).await;
    assert!(matches!(damaged, Err(EntriesError::Damaged { .. })));
}

#[tokio::test]
async fn entries_of_the_api_survive_a_process_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await;
    let full = admin::RegistrationEntry {
        parent_id: "spiffe://cluster.local/agent/one".into(),
        x509_ttl: 90,
        jwt_ttl: 60,
        dns_names: vec!["Web.shop".into()],
        federates_with: vec!["spiffe://other.example".into()],
        hint: "outward".into(),
        ..wanted("web", &["unix:uid:1"])
    };
    let made = first.create(&full).await.unwrap();
    // The first stays open, as after kill -9.
    let second = open(dir.path()).await;
    assert_eq!(second.get(&made.id).unwrap(), made);
    assert_eq!((made.dns_names[0].as_str(), made.federates_with[0].as_str()), ("web.shop", "other.example"));
    let (admin, agent) = (made.to_admin(), made.to_agent());
    assert_eq!((admin.x509_ttl, agent.jwt_ttl, agent.id), (90, 60, made.id.clone()));
    drop(first);
}

#[tokio::test]
async fn an_agent_sees_the_entries_that_name_it_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let entries = open(dir.path()).await;
    let parent = |parent: &str| format!("spiffe://cluster.local/agent/{parent}");
    for (id, of) in [("one", parent("one")), ("two", parent("two")), ("none", String::new())] {
        entries.create(&admin::RegistrationEntry { parent_id: of, ..wanted(id, &["unix:uid:1"]) }).await.unwrap();
    }
    let mut seen: Vec<_> = entries
        .for_agent(&SpiffeId::parse(&parent("one")).unwrap())
        .iter()
        .map(|entry| entry.spiffe_id.path().to_owned())
        .collect();
    seen.sort();
    assert_eq!(seen, ["/one"]);
    let (agent, current) = (SpiffeId::parse(&parent("one")).unwrap(), entries.current());
    let asked = current.values().filter(|entry| EntrySource::get(&entries, &agent, &entry.id).is_some());
    assert_eq!(asked.count(), 1, "by name neither");
}

/// With thousands of agents each change would otherwise make the state of all of them anew.
#[tokio::test]
async fn an_agent_hears_of_a_change_that_concerns_it_and_of_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let entries = open(dir.path()).await;
    let agent = |name: &str| SpiffeId::parse(&format!("spiffe://cluster.local/agent/{name}")).unwrap();
    let of = |id: &str, agent: SpiffeId| admin::RegistrationEntry {
        parent_id: agent.to_string(),
        ..wanted(id, &["unix:uid:1"])
    };
    let mut told = EntrySource::changes(&entries, &agent("one"));
    let mut heard = || told.next().now_or_never().is_some();
    let mine = entries.create(&of("a", agent("one"))).await.unwrap();
    assert!(heard() && !heard(), "once");
    let other = entries.create(&of("b", agent("two"))).await.unwrap();
    entries.set_files(&files(&["c"]));
    assert!(!heard(), "of another's, and of one without a parent");
    entries.delete(&other.id).await.unwrap();
    entries.delete(&mine.id).await.unwrap();
    assert!(heard() && !heard() && entries.for_agent(&agent("one")).is_empty());
    // It may have been told of what was there for a moment.
    let brief = entries.create(&of("a", agent("one"))).await.unwrap();
    entries.delete(&brief.id).await.unwrap();
    assert!(heard() && !heard());
}

#[tokio::test]
async fn a_caller_gets_the_entry_that_knows_most_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let entries = open(dir.path()).await;
    let loose = entries.create(&wanted("web", &["k8s:ns:shop"])).await.unwrap();
    let tight = entries.create(&wanted("web", &["k8s:ns:shop", "k8s:pod-name:web-0"])).await.unwrap();
    let parent_id = "spiffe://cluster.local/agent/one".to_owned();
    let served = wanted("web", &["k8s:ns:shop", "k8s:pod-name:web-0", "k8s:sa:web"]);
    entries.create(&admin::RegistrationEntry { parent_id, ..served }).await.unwrap();
    let id = SpiffeId::parse("spiffe://cluster.local/web").unwrap();
    let of = |selectors: &[&str]| {
        entries
            .for_caller(&id, &selectors.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map(|entry| entry.id.clone())
    };
    assert_eq!(of(&["k8s:ns:shop", "k8s:sa:web"]), Some(loose.id.clone()));
    assert_eq!(of(&["k8s:pod-name:web-0", "k8s:ns:shop"]), Some(tight.id.clone()));
    let all = ["k8s:ns:shop", "k8s:pod-name:web-0", "k8s:sa:web"];
    assert_eq!(of(&all), Some(tight.id.clone()), "whom an agent serves, that agent knows");
    assert_eq!(of(&["k8s:ns:bank"]), None);
    assert_eq!(of(&[]), None, "nothing is known about the caller");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let entries = open(dir.path()).await;
    let uid = &["unix:uid:1"];
    let changed = |change: fn(&mut admin::RegistrationEntry)| {
        let mut entry = wanted("a", uid);
        change(&mut entry);
        entry
    };
    for (bad, text) in [
        (wanted("", uid), "spiffeId"),
        (wanted("a", &[]), "at least one"),
        (wanted("a", &["uid"]), "selectors: `uid` has no colon"),
        (changed(|entry| entry.spiffe_id = "spiffe://other.example/a".into()), "not of trust domain `cluster.local`"),
        (changed(|entry| entry.parent_id = "spiffe://other.example/a".into()), "parentId"),
        (changed(|entry| entry.x509_ttl = -1), "x509TTL: `-1` is negative"),
        (changed(|entry| entry.dns_names = vec!["*.shop".into()]), "wildcard"),
        (changed(|entry| entry.federates_with = vec!["Other".into()]), "federatesWith"),
        (changed(|entry| entry.hint = "a\nb".into()), "hint"),
        (changed(|entry| entry.selectors = vec!["unix:uid:1".into(); 65]), "65 are too many"),
    ] {
        let error = entries.create(&bad).await.unwrap_err();
        assert!(matches!(error, EntriesError::Entry(_)) && error.to_string().contains(text), "{error}");
    }
    entries.create(&wanted("a", uid)).await.unwrap();
    assert!(matches!(entries.create(&wanted("a", uid)).await, Err(EntriesError::Exists(_))));
    assert_eq!(entries.current().len(), 1);
}
