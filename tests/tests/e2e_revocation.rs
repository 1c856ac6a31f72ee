//! `palisade ca revoke`, from the operator's command to the proxies: what is open with a certificate ends, nothing new begins, the
//! record says why, and nobody else notices.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palisade_identity::tls::{ExpectPeer, client_config};
use palisade_identity::{Identity, PrivateKey, SpiffeId, TrustBundle, TrustBundles, TrustDomain, X509Svid};
use palisade_tests::http::{Answer, Connection};
use palisade_tests::mesh::{Agent, Proxy};
use palisade_tests::shop::{HOST, Shop};
use palisade_tests::{binary, poll};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const PAYMENTS: &str = "spiffe://cluster.local/ns/shop/sa/payments";

fn revoke(shop: &Shop, target: [&str; 2]) -> Instant {
    let started = Instant::now();
    let revoked = shop.mesh.palisade(&[&["ca", "revoke", "--reason", "stolen"][..], &target].concat()).unwrap();
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    started
}

/// How many connections of this caller were refused or closed because its certificate is revoked, when there are so many.
fn recorded(shop: &Shop, least: usize) -> Vec<Value> {
    poll(&format!("{least} rows of revoked peers"), || {
        let rows = shop.mesh.audit(&["--verdict", "deny"]).map_err(|error| format!("{error:#}"))?;
        let rows: Vec<Value> = rows.into_iter().filter(|row| row["reason"] == "peer-revoked").collect();
        if rows.len() >= least { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
}

/// An application's open connections through its proxy.
struct App {
    http: Connection,
    tcp: Connection,
}

impl App {
    fn of(proxy: &Proxy) -> Self {
        let (http, tcp) = (proxy.address("outbound/0").unwrap(), proxy.address("outbound/1").unwrap());
        let mut app = Self { http: Connection::open(http).unwrap(), tcp: Connection::open(tcp).unwrap() };
        app.works();
        app
    }

    fn works(&mut self) {
        assert_eq!(self.http.request("GET", "/open", HOST, "").unwrap().status, 200);
        assert_eq!(self.tcp.exchange(b"echo").unwrap(), b"echo");
    }
}

/// A second workload that calls payments, so that somebody is left who must not notice.
fn cart(shop: &Shop) -> Proxy {
    let listen = shop.mesh.host.as_str();
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: cart, namespace: shop}}\n\
         spec: {{address: {listen}, labels: {{app: cart}}, serviceAccount: cart}}\n"
    );
    shop.mesh.write_config("cart.yaml", &entry).unwrap();
    let services = [80, 7000].map(|port| format!("- {{listen: '{listen}:0', service: '{HOST}:{port}'}}"));
    let cart = shop.mesh.start_proxy("shop", "cart", &format!("outbound:\n{}", services.join("\n"))).unwrap();
    let outbound = cart.address("outbound/0").unwrap();
    poll("cart to reach payments", || match palisade_tests::http::request(outbound, "GET", "/warm", HOST) {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cart
}

/// Somebody who has taken certificate and key from another machine of the same workload.
struct Thief {
    config: Arc<ClientConfig>,
    serial: String,
}

impl Thief {
    fn at(agent: &Agent) -> Self {
        let loot = agent.directory.join("loot");
        poll("the agent's identity", || {
            let mut fetch = std::process::Command::new(binary());
            fetch.args(["identity", "fetch", "--socket"]).arg(&agent.socket).arg("--write").arg(&loot);
            let output = fetch.output().map_err(|error| error.to_string())?;
            output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
        });
        let read = |name: &str| std::fs::read(loot.join(name)).unwrap();
        let chain = CertificateDer::pem_slice_iter(&read("svid.pem")).collect::<Result<_, _>>().unwrap();
        let svid = X509Svid::new(chain, PrivateKey::from_pem(&read("svid_key.pem")).unwrap()).unwrap();
        let bundle = TrustBundle::from_pem(TrustDomain::parse("cluster.local").unwrap(), &read("bundle.pem")).unwrap();
        let serial = svid.serial().to_owned();
        let bundles = Arc::new(TrustBundles::from_iter([bundle]));
        let identity = Identity { svid: Arc::new(svid), bundles: Arc::clone(&bundles) };
        let expect = ExpectPeer::Ids(vec![SpiffeId::parse(PAYMENTS).unwrap()]);
        let config = client_config(Some(&identity), bundles, expect, &[b"istio-http/1.1", b"istio"]).unwrap();
        Self { config: Arc::new(config), serial }
    }

    /// An mTLS connection over which `says` was answered with something that begins with `hears`.
    fn open(&self, to: SocketAddr, says: &str, hears: &str) -> Result<Stolen> {
        let tcp = TcpStream::connect(to)?;
        tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
        let tls = ClientConnection::new(Arc::clone(&self.config), to.ip().into())?;
        let mut stolen = Stolen(StreamOwned::new(tls, tcp));
        stolen.0.write_all(says.as_bytes())?;
        let mut answer = [0; 4_096];
        let read = stolen.0.read(&mut answer)?;
        let answer = String::from_utf8_lossy(answer.get(..read).context("too long")?).into_owned();
        ensure!(answer.starts_with(hears), "{answer:?}");
        Ok(stolen)
    }
}

struct Stolen(StreamOwned<ClientConnection, TcpStream>);

impl Stolen {
    /// `Ok` if the proxy has closed it.
    fn closed(&mut self) -> Result<(), String> {
        self.0.sock.set_read_timeout(Some(Duration::from_millis(1))).map_err(|error| error.to_string())?;
        match self.0.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("it sent something".to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err("it is open".to_owned())
            }
            Err(_) => Ok(()),
        }
    }
}

/// Web's requests reach payments no more: neither on the connection that its application has open nor on new ones.
fn refused(shop: &Shop, web: &mut App) {
    let served = |answer: Result<Answer>| answer.is_ok_and(|answer| answer.status == 200);
    poll("web's requests to be refused", || if served(shop.call("GET", "/soon")) { Err("200") } else { Ok(()) });
    assert!(!served(web.http.request("GET", "/late", HOST, "")));
    assert!(!served(shop.call("GET", "/late")));
    assert!(shop.backend.seen().iter().all(|seen| seen.path != "/late"), "it reached the application");
}

/// One certificate of two that an ID has, then the ID: each time what is open with it ends, over HTTP and over opaque TCP.
#[test]
fn a_revoked_caller_loses_what_is_open_and_nobody_else_notices() {
    let shop = Shop::start("# nothing\n").unwrap();
    let agent = shop.mesh.start_agent("shop", "web").unwrap();
    let cart = cart(&shop);
    let (mut web, mut others) = (App::of(&shop.web), App::of(&cart));
    let thief = Thief::at(&agent);
    let doors = ["inbound/0", "inbound/1"].map(|role| shop.payments.address(role).unwrap());
    let request = format!("GET /stolen HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let said = [(request.as_str(), "HTTP/1.1 200"), ("echo", "echo")];
    let open = |at: usize| thief.open(doors[at], said[at].0, said[at].1);
    let (mut http, mut tcp) = (open(0).unwrap(), open(1).unwrap());

    let started = revoke(&shop, ["--serial", &thief.serial]);
    poll("the thief's idle HTTP connection to be closed", || http.closed());
    poll("the thief's TCP connection to be closed", || tcp.closed());
    eprintln!("`ca revoke --serial` to closed connections: {} ms", started.elapsed().as_millis());
    let rows = recorded(&shop, 2);
    assert!(rows.iter().all(|row| row["src"]["spiffe"] == WEB && row["dst"]["spiffe"] == PAYMENTS), "{rows:?}");
    for at in [0, 1] {
        assert!(open(at).is_err(), "a new connection with the revoked certificate was served");
    }
    let rows = recorded(&shop, 4);
    assert_eq!(rows.len(), 4, "one row a connection: {rows:?}");
    let stolen = shop.backend.seen().iter().filter(|seen| seen.path == "/stolen").count();
    assert_eq!(stolen, 1, "the one request before the revocation");
    web.works();
    others.works();

    let started = revoke(&shop, ["--spiffe-id", WEB]);
    poll("web's TCP connection to be closed", || web.tcp.closed());
    eprintln!("`ca revoke --spiffe-id` to a closed connection: {} ms", started.elapsed().as_millis());
    refused(&shop, &mut web);
    recorded(&shop, 6);
    others.works();
}

/// A server's certificate counts as much as a client's.
#[test]
fn a_revoked_server_is_called_no_more() {
    let shop = Shop::start("# nothing\n").unwrap();
    let mut web = App::of(&shop.web);
    let issued = shop.mesh.palisade(&["ca", "issued", "--spiffe-id", PAYMENTS, "-o", "json"]).unwrap();
    let issued: Value = serde_json::from_slice(&issued.stdout).unwrap();
    let serial = issued["issued"][0]["serial"].as_str().unwrap();
    let started = revoke(&shop, ["--serial", serial]);
    poll("web's TCP connection to be closed", || web.tcp.closed());
    eprintln!("`ca revoke --serial` of the server to a closed connection: {} ms", started.elapsed().as_millis());
    refused(&shop, &mut web);
}
