//! A root that is not to be trusted any more, among Envoys: whoever still shows a certificate of it is refused, and nobody else
//! notices.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use palisade_tests::envoy::Envoy;
use palisade_tests::envoy::sds::{Protocol, bootstrap};
use palisade_tests::http::Connection;
use palisade_tests::mesh::{Agent, Mesh, TRUST_DOMAIN};
use palisade_tests::poll;
use serde_json::Value;

const WORD: &[u8] = b"the same";
/// `fail_verify_error`: the chain leads to no root that is trusted.
const REFUSED: &str = ".ssl.fail_verify_error";

/// The mesh and its Envoys: `caller` calls `called`; `robbed` calls `called` too, and is called by `curious`.
struct Scene {
    mesh: Mesh,
    caller: Envoy,
    called: Envoy,
    robbed: Envoy,
    curious: Envoy,
    /// Of all Envoys but the robbed one.
    _agent: Agent,
}

impl Scene {
    /// With the agent of the robbed Envoy.
    fn start(binary: &Path) -> (Self, Agent) {
        let mut mesh = Mesh::new(&[]).expect("a mesh");
        mesh.start_server().expect("a server");
        let (others, agent) = (mesh.start_agent("shop", "front"), mesh.start_agent("shop", "robbed"));
        let (others, agent) = (others.expect("an agent"), agent.expect("an agent"));
        let start = |agent: &Agent, protocol, upstream| {
            let bootstrap = bootstrap(&agent.socket, protocol, TRUST_DOMAIN, upstream);
            Envoy::start(binary, &bootstrap).expect("Envoy starts")
        };
        let called = start(&others, Protocol::Whole, ([127, 0, 0, 1], 9).into());
        let robbed = start(&agent, Protocol::Whole, address(&called, "mtls"));
        let caller = start(&others, Protocol::Delta, address(&called, "mtls"));
        let curious = start(&others, Protocol::Delta, address(&robbed, "mtls"));
        (Self { mesh, caller, called, robbed, curious, _agent: others }, agent)
    }

    /// Runs a verb of `palisade ca` until it is not refused any more; the others go on meanwhile.
    fn ca(&self, arguments: &[&str]) -> Value {
        poll(&format!("{arguments:?}"), || {
            self.others_go_on();
            let output = self.mesh.palisade(&[&["ca"], arguments, &["-o", "json"]].concat()).expect("the binary");
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok::<Value, anyhow::Error>(serde_json::from_slice(&output.stdout)?)
        })
    }

    fn others_go_on(&self) {
        call(&self.caller).unwrap_or_else(|error| panic!("a call among the others failed: {error:#}"));
    }

    /// Waits until these Envoys say so about their certificates and roots; the others go on meanwhile.
    fn until(&self, envoys: &[&Envoy], what: &str, holds: impl Fn(&Held) -> bool) {
        poll(what, || {
            self.others_go_on();
            let held = envoys.iter().map(|envoy| Held::now(envoy)).collect::<Result<Vec<_>>>();
            let held = held.map_err(|error| format!("{error:#}"))?;
            if held.iter().all(&holds) { Ok(()) } else { Err(format!("{held:?}")) }
        });
    }
}

/// What an Envoy shows and trusts, in each of its TLS contexts.
#[derive(Debug)]
struct Held {
    serials: BTreeSet<String>,
    roots: BTreeSet<usize>,
}

impl Held {
    fn now(envoy: &Envoy) -> Result<Self> {
        let answer: Value = serde_json::from_str(&envoy.admin("/certs")?)?;
        let contexts = answer["certificates"].as_array().context("no certificates")?;
        let leaf = |context: &Value| Some(context["cert_chain"][0]["serial_number"].as_str()?.to_owned());
        let roots = |context: &Value| Some(context["ca_cert"].as_array()?.len());
        Ok(Self {
            serials: contexts.iter().filter_map(leaf).collect(),
            roots: contexts.iter().filter_map(roots).collect(),
        })
    }

    /// Only certificates of an agent that are not `old`, and so many roots.
    fn has_changed(&self, old: &Self, roots: usize) -> bool {
        !self.serials.is_empty() && self.serials.is_disjoint(&old.serials) && self.roots == BTreeSet::from([roots])
    }
}

#[test]
fn envoys_refuse_a_certificate_of_a_tainted_root_and_others_go_on() {
    let test = "envoys_refuse_a_certificate_of_a_tainted_root_and_others_go_on";
    let Some(binary) = crate::envoy::binary(test) else { return };
    let (scene, mut robbed_agent) = Scene::start(&binary);
    for envoy in [&scene.caller, &scene.robbed, &scene.curious] {
        poll("a way to be open", || call(envoy).map_err(|error| format!("{error:#}")));
    }
    let stolen = scene.ca(&["status"])["authorities"][0]["id"].clone();
    scene.ca(&["rotate", "--prepare"]);
    let others = [&scene.caller, &scene.called, &scene.curious];
    let both = BTreeSet::from([2]);
    scene.until(&[&others[..], &[&scene.robbed]].concat(), "both roots", |held| held.roots == both);
    let old = Held::now(&scene.called).expect("what it holds");
    // Nobody replaces its certificate any more; it goes on trusting everybody.
    robbed_agent.process().expect("an agent").kill_9().expect("a kill");
    scene.ca(&["rotate", "--activate"]);
    scene.ca(&["taint", stolen.as_str().expect("an ID")]);
    scene.until(&others, "certificates of the new root", |held| held.has_changed(&old, 2));
    call(&scene.robbed).expect("it is trusted as long as its root is in the bundle");
    scene.ca(&["rotate", "--retire", "--authority", stolen.as_str().expect("an ID")]);
    scene.until(&others, "only the new root", |held| held.has_changed(&old, 1));
    let counted = |envoy: &Envoy| envoy.counted(REFUSED).expect("a counter");
    let (before_called, before_curious) = (counted(&scene.called), counted(&scene.curious));
    call(&scene.robbed).expect_err("a client of a root that is gone");
    call(&scene.curious).expect_err("a server of a root that is gone");
    assert!(counted(&scene.called) > before_called, "refused for another reason: {}", scene.called.log());
    assert!(counted(&scene.curious) > before_curious, "refused for another reason: {}", scene.curious.log());
    assert_eq!(counted(&scene.robbed), 0, "it knows the new root, and refuses nobody");
    scene.others_go_on();
    assert_eq!(counted(&scene.caller), 0);
}

fn address(envoy: &Envoy, listener: &str) -> SocketAddr {
    envoy.listener(listener).expect("a listener")
}

/// A word through an Envoy and through the one that it calls, and back.
fn call(envoy: &Envoy) -> Result<()> {
    let answer = Connection::open(envoy.listener("plain")?)?.exchange(WORD)?;
    ensure!(answer == WORD, "{answer:?} came back");
    Ok(())
}
