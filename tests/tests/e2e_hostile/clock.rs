//! Clocks that are an hour ahead or back, of one side and of the other, and that are put right again while everything runs.
//!
//! Who has the wrong time is told so and goes on asking; what it holds is named for what it is. Nobody with another clock than his
//! notices more than that, and nothing has to be restarted.

use palisade_tests::clock::Clock;
use palisade_tests::mesh::Agent;
use palisade_tests::{http, poll};
use rustix::process::Signal;

use crate::caller::Ca;

const HOUR: i64 = 3_600;
/// Shorter than the clocks differ, so that what one side issues is of no use to the other.
const LEAF: [&str; 2] = ["--leaf-ttl", "50m"];

fn identity(agent: &Agent) -> Option<Vec<u8>> {
    std::fs::read(agent.directory.join("identity.json")).ok()
}

/// Waits for the agent's first identity, or another than `before`.
fn served(agent: &Agent, before: Option<&Vec<u8>>) -> Vec<u8> {
    poll("a new identity", || identity(agent).filter(|now| Some(now) != before).ok_or_else(|| last_words(agent)))
}

fn last_words(agent: &Agent) -> String {
    let log = std::fs::read_to_string(agent.directory.join("agent.log")).unwrap_or_default();
    log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
}

/// Waits until the agent's log says all of this in one line.
fn says(agent: &Agent, words: &[&str]) {
    poll(&format!("the agent to say {words:?}"), || {
        let log = std::fs::read_to_string(agent.directory.join("agent.log")).unwrap_or_default();
        let said = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if said { Ok(()) } else { Err(last_words(agent)) }
    });
}

fn readiness(agent: &Agent) -> u16 {
    http::request(agent.addresses["metrics"], "GET", "/readyz", "localhost").unwrap().status
}

fn wait_for_readiness(agent: &Agent, status: u16) {
    poll(&format!("readiness {status}"), || match readiness(agent) {
        found if found == status => Ok(()),
        found => Err((found, last_words(agent))),
    });
}

/// A server with a clock of its own, an agent with that clock and one with the right one.
struct Scene {
    ca: Ca,
    clock: Clock,
    before: Agent,
    held: Vec<u8>,
}

impl Scene {
    /// With an agent that was served while both clocks were right.
    fn start() -> Self {
        let clock = Clock::new().unwrap();
        let ca = Ca::start(|mesh| {
            mesh.start_by = clock.command();
            mesh.server_flags = LEAF.map(str::to_owned).into();
        });
        Self::with(ca, clock)
    }

    fn with(mut ca: Ca, clock: Clock) -> Self {
        ca.mesh.start_by = Vec::new();
        let before = ca.mesh.start_agent("shop", "before").unwrap();
        let held = served(&before, None);
        Self { ca, clock, before, held }
    }

    /// An agent that has the server's clock.
    fn agreeing(&mut self, account: &str) -> Agent {
        self.ca.mesh.start_by = self.clock.command();
        let agent = self.ca.mesh.start_agent("shop", account);
        self.ca.mesh.start_by = Vec::new();
        agent.unwrap()
    }

    /// The clock is right again: everybody is served without being restarted.
    fn put_right(mut self, late: &mut Agent) {
        self.clock.set(0).unwrap();
        for agent in [&mut self.before, &mut *late] {
            agent.process().unwrap().signal(Signal::HUP).unwrap();
        }
        served(&self.before, Some(&self.held));
        served(late, None);
        wait_for_readiness(&self.before, 200);
        wait_for_readiness(late, 200);
        poll("the server to be ready", || match self.ca.page("/readyz") {
            (200, _) => Ok(()),
            other => Err(other),
        });
    }
}

#[test]
fn a_server_an_hour_ahead_is_named_and_serves_those_that_agree() {
    let mut scene = Scene::start();
    scene.clock.set(HOUR).unwrap();
    let agreeing = scene.agreeing("agreeing");
    served(&agreeing, None);
    // What it issues has not begun for anybody else.
    let mut late = scene.ca.mesh.start_agent("shop", "late").unwrap();
    says(&late, &["the server's answer is not installed", "is not valid before"]);
    assert_eq!((identity(&late), readiness(&late)), (None, 503));
    // Who held something before keeps it, though the server takes it for expired.
    scene.before.process().unwrap().signal(Signal::HUP).unwrap();
    says(&scene.before, &["no new certificate; what there is stays in use"]);
    assert_eq!((identity(&scene.before), readiness(&scene.before)), (Some(scene.held.clone()), 200));
    scene.put_right(&mut late);
}

#[test]
fn a_server_an_hour_back_is_named_and_serves_those_that_agree() {
    let mut scene = Scene::start();
    scene.clock.set(-HOUR).unwrap();
    let agreeing = scene.agreeing("agreeing");
    served(&agreeing, None);
    // What it issues has ended for anybody else.
    let mut late = scene.ca.mesh.start_agent("shop", "late").unwrap();
    says(&late, &["the server's answer is not installed", "expired"]);
    assert_eq!((identity(&late), readiness(&late)), (None, 503));
    scene.before.process().unwrap().signal(Signal::HUP).unwrap();
    says(&scene.before, &["no new certificate; what there is stays in use"]);
    assert_eq!((identity(&scene.before), readiness(&scene.before)), (Some(scene.held.clone()), 200));
    // Before its own certificates began it issues nothing, and says so.
    scene.clock.set(-3 * HOUR).unwrap();
    poll("the server to be not ready", || match scene.ca.page("/readyz") {
        (503, text) if text == "not ready: certificate authority\n" => Ok(()),
        other => Err(other),
    });
    // Its token was made by that clock, and ended by it.
    scene.clock.set(0).unwrap();
    let token = scene.ca.mesh.join_token("shop", "late").unwrap();
    std::fs::write(late.directory.join("join-token"), token).unwrap();
    scene.put_right(&mut late);
}

/// The other side: one machine of many has the wrong time.
#[test]
fn an_agent_whose_clock_jumps_names_its_state_and_others_are_served() {
    let ca = Ca::start(|_| {});
    let mut scene = Scene::with(ca, Clock::new().unwrap());
    let mut wrong = scene.agreeing("wrong");
    let held = served(&wrong, None);
    wait_for_readiness(&wrong, 200);
    for (jump, words) in [(2 * HOUR, "expired at"), (-HOUR, "is not valid before")] {
        scene.clock.set(jump).unwrap();
        wrong.process().unwrap().signal(Signal::HUP).unwrap();
        says(&wrong, &["the identity cannot be used", words]);
        wait_for_readiness(&wrong, 503);
        // Nobody else notices.
        let kept = identity(&scene.before);
        scene.before.process().unwrap().signal(Signal::HUP).unwrap();
        served(&scene.before, kept.as_ref());
        assert_eq!(readiness(&scene.before), 200);
        scene.clock.set(0).unwrap();
        wrong.process().unwrap().signal(Signal::HUP).unwrap();
        wait_for_readiness(&wrong, 200);
    }
    served(&wrong, Some(&held));
}
