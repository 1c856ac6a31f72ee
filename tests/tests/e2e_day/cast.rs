//! Who takes part: the shop with its two proxies, and two Envoys, each beside an agent of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use palisade_tests::envoy::Envoy;
use palisade_tests::envoy::sds::{Protocol, bootstrap};
use palisade_tests::http::counted;
use palisade_tests::mesh::{Agent, Mesh, TRUST_DOMAIN};
use palisade_tests::shop::Shop;
use palisade_tests::{poll, poll_for};
use rustix::process::Signal;
use serde_json::Value;

use crate::LEAF;
use crate::count::Count;
use crate::load::{Call, Load};

/// Longer than anything lasts that waits for leaves to end.
const LONG: Duration = Duration::from_secs(180);
/// An Envoy subscribes to its certificate and to its trust.
const STREAMS: u64 = 2;

/// Everybody, and the load that never stops.
pub(crate) struct Cast {
    pub(crate) shop: Shop,
    /// Calls `west`.
    pub(crate) east: Side,
    pub(crate) west: Side,
    pub(crate) load: Load,
    before: Count,
    /// Authorities that have ever signed.
    pub(crate) roots: Vec<String>,
}

/// An Envoy and its agent.
pub(crate) struct Side {
    pub(crate) agent: Agent,
    envoy: Envoy,
}

impl Side {
    fn start(binary: &Path, mesh: &Mesh, name: &str, protocol: Protocol, upstream: Option<&Side>) -> Self {
        let agent = mesh.start_agent("shop", name).unwrap();
        let upstream = upstream.map_or(([127, 0, 0, 1], 9).into(), |side| side.envoy.listener("mtls").unwrap());
        let envoy = Envoy::start(binary, &bootstrap(&agent.socket, protocol, TRUST_DOMAIN, upstream)).unwrap();
        Self { agent, envoy }
    }

    /// `kill -9`: Envoy keeps what it has.
    pub(crate) fn kill_agent(&mut self) {
        self.agent.process().unwrap().kill_9().unwrap();
    }

    /// The agent comes back, and Envoy finds it.
    pub(crate) fn start_agent(&mut self) {
        self.agent.start().unwrap();
        self.wait_for_envoy();
    }

    pub(crate) fn wait_for_envoy(&self) {
        poll("Envoy to subscribe again", || match self.metric("palisade_sds_streams") {
            STREAMS => Ok(()),
            other => Err((other, self.envoy.log())),
        });
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        counted(self.agent.addresses["metrics"], name).unwrap()
    }
}

impl Cast {
    /// Everybody is up, and every way has been gone once.
    pub(crate) fn start(binary: &Path) -> Self {
        let leaf = format!("{}s", LEAF.as_secs());
        let shop = Shop::start_served("# nothing\n", &["--leaf-ttl", &leaf, "--max-leaf-ttl", &leaf]).unwrap();
        let west = Side::start(binary, &shop.mesh, "west", Protocol::Delta, None);
        let east = Side::start(binary, &shop.mesh, "east", Protocol::Whole, Some(&west));
        let between_envoys = Call::Echo(east.envoy.listener("plain").unwrap());
        let between_proxies =
            [Call::Get(shop.outbound().unwrap()), Call::Echo(shop.web.address("outbound/1").unwrap())];
        let calls = [&[between_envoys; 2][..], &between_proxies].concat();
        for call in &calls {
            poll("a way to be open", || call.make().map_err(|error| format!("{call:?}: {error:#}")));
        }
        let before = Count::now([&east.envoy, &west.envoy], &shop).unwrap();
        let load = Load::start(&calls);
        let mut cast = Self { shop, east, west, load, before, roots: Vec::new() };
        cast.roots.extend(cast.authority("active"));
        cast
    }

    /// Waits, as long as nothing fails.
    pub(crate) fn until(&self, what: &str, mut probe: impl FnMut() -> Result<(), String>) {
        poll_for(LONG, what, || {
            self.load.check();
            probe()
        });
    }

    /// Orders a new root; everything else is the server's business.
    pub(crate) fn order_root(&mut self) {
        let ordered = self.shop.mesh.palisade(&["ca", "rotate", "--auto"]).unwrap();
        assert!(ordered.status.success(), "{}", String::from_utf8_lossy(&ordered.stderr));
        let root = self.authority("prepared").or_else(|| self.authority("active")).unwrap();
        assert!(!self.roots.contains(&root), "{root} is not new: {:?}", self.roots);
        self.roots.push(root);
    }

    /// Waits until the newest root signs, and gives everybody a certificate of it at once.
    pub(crate) fn use_root(&mut self) {
        let newest = self.roots.last().cloned();
        self.until("the new root to be used", || {
            if self.authority("active") == newest { Ok(()) } else { Err(format!("{}", self.status())) }
        });
        self.renew();
    }

    /// Waits until only the newest root is left.
    pub(crate) fn retire_roots(&self) {
        self.until("the old roots to be gone", || match self.status()["authorities"].as_array() {
            Some(all) if all.len() == 1 => Ok(()),
            all => Err(format!("{all:?}")),
        });
    }

    /// A fresh certificate for everybody.
    pub(crate) fn renew(&mut self) {
        let before = self.renewals("renewed");
        let processes = [self.east.agent.process(), self.west.agent.process()];
        for process in processes.into_iter().chain([self.shop.web.process(), self.shop.payments.process()]) {
            process.unwrap().signal(Signal::HUP).unwrap();
        }
        self.wait_for_renewals("renewed", &before);
    }

    /// Waits until everybody has had one more attempt to renew that ended so.
    pub(crate) fn wait_for_renewals(&self, outcome: &str, before: &[u64]) {
        self.until(&format!("renewals that are {outcome}"), || {
            let now = self.renewals(outcome);
            if now.iter().zip(before).all(|(now, before)| now > before) { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }

    /// Attempts to renew, by process.
    pub(crate) fn renewals(&self, outcome: &str) -> [u64; 4] {
        let proxies = [&self.shop.web, &self.shop.payments].map(|proxy| proxy.address("metrics").unwrap());
        let agents = [&self.east, &self.west].map(|side| side.agent.addresses["metrics"]);
        let name = format!("palisade_agent_renewals_total{{outcome=\"{outcome}\"}}");
        [agents[0], agents[1], proxies[0], proxies[1]].map(|address| counted(address, &name).unwrap())
    }

    fn status(&self) -> Value {
        let output = self.shop.mesh.palisade(&["ca", "status", "-o", "json"]).unwrap();
        // While the server starts, nobody answers.
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn authority(&self, state: &str) -> Option<String> {
        let status = self.status();
        let one = status["authorities"].as_array()?.iter().find(|one| one["state"] == state)?;
        Some(one["id"].as_str()?.to_owned())
    }

    /// Ends the load and counts.
    pub(crate) fn end(self, began: Instant) {
        let answered = self.load.stop();
        let count = Count::now([&self.east.envoy, &self.west.envoy], &self.shop).unwrap().since(&self.before);
        let (calls, seconds) = (answered.iter().sum::<u64>(), began.elapsed().as_secs());
        eprintln!("{seconds} s, {} roots, {calls} calls {answered:?}, none failed; {count}", self.roots.len());
        count.check();
        let [one, other, get, echo] = answered[..] else { panic!("{answered:?}") };
        let [caller, called, proxies] = count.handshakes;
        assert!(caller >= one + other && called >= one + other, "each call between Envoys is a handshake: {count}");
        assert!(get > 0 && proxies >= echo, "each opaque connection between proxies is one: {count}");
        assert_eq!(count.resumed, 0, "a resumed session proves nothing");
    }
}
