//! One real Envoy that decides: scenes become its listeners, requests go over sockets, what it says becomes answers.

mod answer;
mod caller;
mod hello;
mod http;
mod listener;
mod log;
mod provider;
mod proxy_protocol;
mod value;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use self::caller::{Caller, Heard, Talk};
use self::log::DecisionLog;
use super::compare::Answer;
use super::identities::Identities;
use super::scene::{Call, Place, Reserved, Scene};
use super::translate::Chain;
use crate::envoy::Envoy;

pub(super) use listener::watched;
pub(super) use provider::providers;

/// Callers at a time: more than Envoy's one worker needs, so that it never waits.
const CALLERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// A scene and the connections that come to it.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) scene: Scene,
    pub(super) calls: Vec<Call>,
}

/// Answers by question, call and request.
pub(super) type Answers = Vec<Vec<Vec<Answer>>>;

/// The running Envoy.
#[derive(Debug)]
pub(super) struct Oracle {
    envoy: Envoy,
    directory: tempfile::TempDir,
    identities: Identities,
    log: DecisionLog,
    updates: u64,
    created: u64,
}

impl Oracle {
    /// Starts Envoy with the providers of CUSTOM policies and nothing else.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start(binary: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // A directory of its own: Envoy looks at every change in the one that it watches.
        let watched = directory.path().join("listeners");
        std::fs::create_dir(&watched)?;
        let lds = watched.join("listeners.json");
        std::fs::write(&lds, discovery(0, &[]).to_string())?;
        let (listeners, clusters) = (provider::listeners(directory.path()), provider::clusters(directory.path()));
        let created = u64::try_from(listeners.len())?;
        let bootstrap = json!({
            "node": { "id": "conformance", "cluster": "conformance" },
            "admin": { "address": { "socketAddress": { "address": "127.0.0.1", "portValue": 0 } } },
            "dynamicResources": { "ldsConfig": { "resourceApiVersion": "V3", "pathConfigSource": {
                "path": lds, "watchedDirectory": { "path": watched },
            } } },
            "staticResources": { "listeners": listeners, "clusters": clusters },
            // As istiod starts its proxies: a fragment is cut off, not refused.
            "layeredRuntime": { "layers": [{ "name": "istio", "staticLayer": {
                "envoy.reloadable_features.http_reject_path_with_fragment": false,
            } }] },
        });
        let arguments =
            ["--drain-time-s", "1", "--file-flush-interval-msec", "10", "--component-log-level", "misc:error"];
        let envoy = Envoy::start_with(binary, &bootstrap, &arguments)?;
        let log = DecisionLog::new(directory.path().join("decisions.log"));
        Ok(Self { envoy, directory, identities: Identities::new()?, log, updates: 0, created })
    }

    /// Decides everything; what was asked before is forgotten.
    ///
    /// # Errors
    /// When Envoy refuses a listener or does not answer.
    pub(super) fn ask(&mut self, questions: &[Question]) -> Result<Answers> {
        // Held until the listeners are gone from Envoy again.
        let places = questions.iter().map(|question| place(&question.scene)).collect::<Result<Vec<_>>>()?;
        self.open(questions, &places)?;
        let next = AtomicUsize::new(0);
        let heard: Mutex<Vec<(usize, Vec<Vec<Answer>>)>> = Mutex::default();
        std::thread::scope(|scope| -> Result<()> {
            let worker = || -> Result<()> {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(question), Some(place)) = (questions.get(index), places.get(index)) else {
                        return Ok(());
                    };
                    let answers = self.question(question, place.address, &self.name(index))?;
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push((index, answers));
                }
            };
            let workers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(worker)).collect();
            for worker in workers {
                worker.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
            }
            Ok(())
        })?;
        let mut heard = heard.into_inner().unwrap_or_else(PoisonError::into_inner);
        heard.sort_by_key(|(index, _)| *index);
        Ok(heard.into_iter().map(|(_, answers)| answers).collect())
    }

    fn name(&self, index: usize) -> String {
        format!("update-{}-scene-{index}", self.updates)
    }

    fn question(&self, question: &Question, address: SocketAddr, name: &str) -> Result<Vec<Vec<Answer>>> {
        let scene = &question.scene;
        let caller = |number, call| Caller { scene, number, call, address, identities: &self.identities };
        let context = || format!("{name} at {address}, {:?}", scene.door);
        if scene.chain == Chain::Http {
            let talks: Vec<Talk<'_>> =
                question.calls.iter().enumerate().map(|(number, call)| Talk::new(caller(number, call))).collect();
            let heard = converse(talks).with_context(context)?;
            let answer = |(which, (status, mut facts)): (String, (u16, Value))| {
                if status == 403 && has_dry_run(scene) {
                    facts["rbac"] = self.log.wait_for(name, &which)?["rbac"].take();
                }
                Ok(answer::answer(scene, status, &facts))
            };
            let numbered = |(call, heard): (usize, Heard)| {
                let heard = heard.into_iter().enumerate();
                heard.map(|(at, facts)| answer((format!("{call}-{at}"), facts))).collect()
            };
            return heard.into_iter().enumerate().map(numbered).collect();
        }
        let connections = question.calls.iter().map(|call| caller(0, call).connection());
        let connections = connections.collect::<Result<Vec<_>>>().with_context(context)?;
        let connections = connections.into_iter().map(|(echoed, peer)| {
            let facts = self.log.wait_for(name, &peer.to_string())?;
            Ok(vec![answer::answer(scene, if echoed { 200 } else { 403 }, &facts)])
        });
        connections.collect()
    }

    /// Replaces the listeners and waits until the new ones are open.
    fn open(&mut self, questions: &[Question], places: &[Arc<Reserved>]) -> Result<()> {
        self.updates += 1;
        self.log.forget();
        let listeners: Vec<Value> = questions
            .iter()
            .zip(places)
            .enumerate()
            .map(|(index, (question, place))| {
                let name = self.name(index);
                listener::listener(&question.scene, &name, place.address, &self.identities, self.log.path())
            })
            .collect();
        let fresh = self.directory.path().join("next.json");
        std::fs::write(&fresh, discovery(self.updates, &listeners).to_string())?;
        // Envoy sees whole files only.
        std::fs::rename(&fresh, self.directory.path().join("listeners/listeners.json"))?;
        self.created += u64::try_from(questions.len())?;
        let begin = Instant::now();
        loop {
            let stats = self.envoy.admin("/stats?filter=listener_manager").unwrap_or_default();
            let stat = |name: &str| {
                let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                line.and_then(|value| value.parse::<u64>().ok()).unwrap_or_default()
            };
            if stat("listener_manager.lds.update_rejected") > 0 || stat("listener_manager.listener_create_failure") > 0
            {
                bail!("Envoy refused a listener: {}", self.envoy.log());
            }
            // The first update is the empty one of the start.
            if stat("listener_manager.lds.update_success") > self.updates
                && stat("listener_manager.listener_create_success") >= self.created
            {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("Envoy does not open its listeners: {stats}\n{}", self.envoy.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Holds all conversations at once, each one request at a time.
fn converse(mut talks: Vec<Talk<'_>>) -> Result<Vec<Heard>> {
    loop {
        let mut said = false;
        for talk in &mut talks {
            said |= talk.say()?;
        }
        if !said {
            return Ok(talks.into_iter().map(Talk::into_heard).collect());
        }
        for talk in &mut talks {
            talk.hear()?;
        }
    }
}

/// Whether there are dry-run policies. A filter that refuses a request says what they say after it has answered.
fn has_dry_run(scene: &Scene) -> bool {
    scene.policies.iter().any(|policy| policy.dry_run)
}

/// Where the listener of a scene will be.
fn place(scene: &Scene) -> Result<Arc<Reserved>> {
    Ok(match &scene.door.place {
        Place::At(reserved) => Arc::clone(reserved),
        Place::Proxied { v6: false } => Arc::new(Reserved::on(IpAddr::V4(Ipv4Addr::LOCALHOST))?),
        Place::Proxied { v6: true } => Arc::new(Reserved::on(IpAddr::V6(Ipv6Addr::LOCALHOST))?),
    })
}

fn discovery(version: u64, listeners: &[Value]) -> Value {
    json!({ "versionInfo": version.to_string(), "resources": listeners })
}
