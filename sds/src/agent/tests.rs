use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::Code;

use super::*;
use crate::config::{FirstTrust, JoinTokenSource};
use crate::fixtures::{Authority, START, TestClock, domain};
use crate::token::JoinToken;
use authority::{Behaviour, RealClock, Scripted, now};

mod agents;
mod authority;
mod following;
mod serving;
mod supplying;

const ID: &str = "spiffe://a.test/ns/web/sa/front";
const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";

/// An agent's directory and configuration; the agent itself can be started again and again.
struct Home {
    dir: tempfile::TempDir,
    config: AgentConfig,
}

impl Home {
    fn new(server: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = AgentConfig {
            server: server.to_owned(),
            server_name: Some("localhost".to_owned()),
            trust_domain: domain(),
            first_trust: FirstTrust::BundleFile(dir.path().join("bundle.pem")),
            join_token: None,
            expected_id: None,
            lifetime: None,
            state_dir: dir.path().join("state"),
            socket: None,
            allowed_uids: Vec::new(),
            files: Vec::new(),
            admin_socket: None,
        };
        Self { dir, config }
    }

    fn pinned(scripted: &Scripted) -> Self {
        let mut home = Self::new(&scripted.address.to_string());
        home.config.first_trust = FirstTrust::JoinToken;
        home.config.join_token = Some(JoinTokenSource::Inline(token(&scripted.authority)));
        home
    }

    fn agent(&self) -> Agent {
        self.try_agent().unwrap()
    }

    fn try_agent(&self) -> Result<Agent, NewAgentError> {
        Agent::new(self.config.clone(), Arc::new(RealClock), &mut Registry::default())
    }

    fn stored(&self) -> std::path::PathBuf {
        self.config.state_dir.join("identity.json")
    }
}

fn token(authority: &Authority) -> JoinToken {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &authority.root_der());
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    JoinToken::parse(&format!("pjt1.{SECRET}.{hash}")).unwrap()
}

/// An agent that runs; [`Running::stop`] waits for its end.
struct Running {
    agent: Agent,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Running {
    fn start(agent: Agent) -> Self {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(agent.clone().run(shutdown.clone()));
        Self { agent, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn until(&self, what: &str, condition: impl Fn(&Agent) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !condition(&self.agent) {
            assert!(tokio::time::Instant::now() < deadline, "{what}: {:?}", self.agent);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_ready(&self) -> Arc<Identity> {
        self.until("ready", |agent| *agent.readiness().borrow()).await;
        self.agent.current().unwrap()
    }
}

#[tokio::test]
async fn trap_14_a_token_gets_the_first_certificate_and_the_next_has_another_key() {
    let scripted = Scripted::start(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let home = Home::pinned(&scripted);
    let running = Running::start(home.agent());
    let changes = Arc::new(AtomicUsize::new(0));
    let count = changes.clone();
    running.agent.on_change(Box::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let first = running.until_ready().await;
    assert_eq!(first.svid.id().as_str(), ID);
    assert_eq!(first.svid.chain().len(), 2);
    running.agent.renew_now();
    running.until("renewed", |agent| agent.current().unwrap().svid.serial() != first.svid.serial()).await;
    running.until("told twice", |_| changes.load(Ordering::Relaxed) == 2).await;
    let seen = scripted.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].token.as_ref().is_some_and(|token| token.starts_with(&format!("Bearer pjt1.{SECRET}."))));
    assert_eq!((seen[0].peer.as_deref(), seen[0].subject.as_str(), seen[0].lifetime), (None, "", 0));
    assert_eq!((seen[1].token.as_deref(), seen[1].peer.as_deref()), (None, Some(ID)));
    assert_ne!(seen[0].key, seen[1].key, "a new key each time");
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn trap_31_a_bundle_file_and_a_token_file_are_read_when_needed() {
    let scripted = Scripted::start(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let mut home = Home::new(&scripted.address.to_string());
    let path = home.dir.path().join("token");
    home.config.join_token = Some(JoinTokenSource::File(path.clone()));
    home.config.lifetime = Some(Duration::from_secs(1800));
    let running = Running::start(home.agent());
    running.until("a named failure", |agent| agent.health().last_error.is_some()).await;
    let error = running.agent.health().last_error.unwrap();
    assert!(error.starts_with(&format!("join token file `{}` cannot be read: ", path.display())), "{error}");
    std::fs::write(home.dir.path().join("bundle.pem"), scripted.authority.bundle().to_pem()).unwrap();
    std::fs::write(&path, format!("{}\n", token(&scripted.authority).secret_text())).unwrap();
    running.until_ready().await;
    assert_eq!(scripted.seen()[0].lifetime, 1800);
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn a_server_with_another_root_never_sees_the_token() {
    let scripted = Scripted::start(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let mut home = Home::pinned(&scripted);
    home.config.join_token = Some(JoinTokenSource::Inline(token(&Authority::new("other"))));
    let running = Running::start(home.agent());
    running.until("a named failure", |agent| agent.health().last_error.is_some()).await;
    assert!(running.agent.current().is_none());
    assert_eq!(scripted.seen(), []);
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn a_refusal_is_not_repeated_hot() {
    let authority = Arc::new(Authority::new("a"));
    let scripted = Scripted::start(authority, Behaviour::Refuse(Code::Unauthenticated)).await;
    let home = Home::pinned(&scripted);
    let running = Running::start(home.agent());
    running.until("refused", |agent| agent.health().last_error.is_some()).await;
    let error = running.agent.health().last_error.unwrap();
    assert!(error.contains("the server refused") && error.contains("the test says no"), "{error}");
    assert!(!error.contains(SECRET));
    assert!(
        tokio::time::timeout(Duration::from_secs(2), running.until("never", |_| scripted.seen().len() > 1))
            .await
            .is_err(),
        "a second attempt came within two seconds"
    );
    scripted.behave(Behaviour::Issue(ID, 3600));
    running.agent.renew_now();
    running.until_ready().await;
    assert_eq!(running.agent.health().last_error, None);
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn an_answer_for_somebody_else_leaves_the_identity_alone() {
    let scripted = Scripted::start(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let home = Home::pinned(&scripted);
    let running = Running::start(home.agent());
    let first = running.until_ready().await;
    let stored = std::fs::read(home.stored()).unwrap();
    for (behaviour, text) in [
        (Behaviour::Issue("spiffe://a.test/ns/web/sa/admin", 3600), "was issued where"),
        (Behaviour::OtherKey(ID), "does not belong"),
    ] {
        scripted.behave(behaviour);
        running.agent.renew_now();
        running.until(text, |agent| agent.health().last_error.is_some_and(|error| error.contains(text))).await;
        assert_eq!(running.agent.current().unwrap().svid.serial(), first.svid.serial());
        assert_eq!(std::fs::read(home.stored()).unwrap(), stored);
        assert!(*running.agent.readiness().borrow());
    }
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn a_short_life_is_renewed_again_and_again_and_ends_named_when_the_server_is_gone() {
    let authority = Arc::new(Authority::new("a"));
    let scripted = Scripted::start(authority.clone(), Behaviour::Issue(ID, 4)).await;
    let home = Home::pinned(&scripted);
    let running = Running::start(home.agent());
    running.until_ready().await;
    let unready = running.agent.readiness();
    running.until("three certificates", |_| scripted.seen().len() >= 3).await;
    assert!(!unready.has_changed().unwrap() || *unready.borrow(), "it was ready all the time");
    let address = scripted.address.to_string();
    scripted.stop().await;
    running.until("expired", |agent| matches!(agent.health().identity, IdentityState::Expired { .. })).await;
    running.until("not ready", |agent| !*agent.readiness().borrow()).await;
    assert!(running.agent.health().to_string().contains(&format!("identity `{ID}` expired at ")));
    // The single-use token was enough for the test's authority; a real one would want another.
    let scripted = Scripted::start_at(&address, authority, Behaviour::Issue(ID, 3600)).await;
    running.until_ready().await;
    running.stop().await;
    scripted.stop().await;
}

/// Neither the certificate nor the token is shown to it, and what there is stays in use.
#[tokio::test]
async fn a_server_under_an_unknown_root_is_named_and_not_trusted() {
    let scripted = Scripted::start(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let (home, address) = (Home::pinned(&scripted), scripted.address.to_string());
    let mut registry = Registry::default();
    let running = Running::start(Agent::new(home.config.clone(), Arc::new(RealClock), &mut registry).unwrap());
    running.until_ready().await;
    scripted.stop().await;
    let other = Scripted::start_at(&address, Arc::new(Authority::new("other")), Behaviour::Issue(ID, 3600)).await;
    running.agent.renew_now();
    running.until("said", |agent| agent.health().last_error.is_some()).await;
    let error = running.agent.health().last_error.unwrap();
    assert!(error.contains("the server is not recognised"), "{error}");
    assert!(*running.agent.readiness().borrow() && other.seen().is_empty());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("palisade_agent_renewals_total{outcome=\"unrecognised\"} 1"), "{text}");
    running.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_restart_needs_no_server() {
    let scripted = Scripted::start(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let mut home = Home::pinned(&scripted);
    let running = Running::start(home.agent());
    let first = running.until_ready().await;
    running.stop().await;
    scripted.stop().await;
    home.config.join_token = None;
    home.config.first_trust = FirstTrust::BundleFile(home.dir.path().join("gone.pem"));
    let again = home.agent();
    assert!(*again.readiness().borrow());
    assert_eq!(again.current().unwrap().svid.serial(), first.svid.serial());
}

#[tokio::test]
async fn a_full_disk_stops_the_keeping_and_not_the_serving() {
    let scripted = Scripted::start(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    let home = Home::pinned(&scripted);
    let agent = home.agent();
    // A directory in the file's place: the write fails as it would on a full disk, for every user.
    std::fs::create_dir(home.stored()).unwrap();
    let running = Running::start(agent);
    let first = running.until_ready().await;
    std::fs::remove_dir(home.stored()).unwrap();
    running.agent.renew_now();
    running.until("stored", |_| home.stored().is_file()).await;
    running.until("replaced", |agent| agent.current().unwrap().svid.serial() != first.svid.serial()).await;
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn only_one_handle_runs() {
    let home = Home::new("127.0.0.1:9");
    let running = Running::start(home.agent());
    running.until("an attempt", |agent| agent.health().last_error.is_some()).await;
    let second = running.agent.clone().run(CancellationToken::new()).await;
    assert!(matches!(second, Err(RunError::AlreadyRunning)));
    running.stop().await;
}

#[test]
fn damage_is_passed_over_and_a_newer_format_is_not() {
    let home = Home::new("127.0.0.1:9");
    let storage = Storage::open(&home.config.state_dir).unwrap();
    storage.save(&Authority::new("a").identity_between(ID, now() - 60, now() + 3600)).unwrap();
    assert!(home.agent().current().is_some());
    let good = std::fs::read_to_string(home.stored()).unwrap();
    for bad in ["", "{", "[]", "\u{0}", &good[..good.len() / 2]] {
        std::fs::write(home.stored(), bad).unwrap();
        let agent = home.agent();
        assert!(agent.current().is_none() && !*agent.readiness().borrow());
        assert_eq!(agent.health().identity, IdentityState::Missing);
    }
    std::fs::write(home.stored(), good.replace("\"format\": 1", "\"format\": 7")).unwrap();
    let error = home.try_agent().unwrap_err();
    assert!(error_chain(&error).contains("format 7 is newer than this agent"), "{}", error_chain(&error));
}

#[test]
fn an_identity_that_is_not_the_expected_one_is_passed_over() {
    let mut home = Home::new("127.0.0.1:9");
    let storage = Storage::open(&home.config.state_dir).unwrap();
    storage.save(&Authority::new("a").identity_between(ID, now() - 60, now() + 3600)).unwrap();
    home.config.expected_id = Some("spiffe://a.test/ns/web/sa/other".parse().unwrap());
    assert!(home.agent().current().is_none());
    home.config.expected_id = Some(ID.parse().unwrap());
    assert!(home.agent().current().is_some());
    home.config.trust_domain = palisade_identity::TrustDomain::parse("b.test").unwrap();
    assert!(matches!(home.try_agent(), Err(NewAgentError::Config(_))));
    home.config.expected_id = None;
    assert!(home.agent().current().is_none(), "stored for another trust domain");
}

#[test]
fn the_state_is_named_by_the_clock() {
    let home = Home::new("127.0.0.1:9");
    let storage = Storage::open(&home.config.state_dir).unwrap();
    storage.save(&Authority::new("a").identity(ID)).unwrap();
    let clock = TestClock::new();
    let mut registry = Registry::default();
    let agent = Agent::new(home.config.clone(), clock.clone(), &mut registry).unwrap();
    assert!(matches!(agent.health().identity, IdentityState::Usable { .. }));
    clock.set(START + 3541);
    assert_eq!(agent.health().to_string(), format!("identity `{ID}` expired at {} (Unix seconds)", START + 3540));
    clock.set(START - 61);
    assert!(agent.health().to_string().contains("is the clock right?"));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains(&format!("palisade_cert_not_after_seconds {}", START + 3540)));
}
