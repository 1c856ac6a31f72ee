//! One server and its proxies, each as the binary would assemble it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use palisade_control::{Control, ControlConfig, ControlStatus, Handle};
use palisade_identity::Clock;
use palisade_proxy::control_client::{Apply, ClientConfig, ClientStatus, ControlClient, RawSnapshot};
use palisade_tests::poll;
use prometheus_client::registry::Registry;
use rustls_pki_types::UnixTime;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::identity::{Authority, serve};

/// Who a test's proxy is: node and SPIFFE ID.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub(crate) node: (&'static str, &'static str),
    pub(crate) id: Option<&'static str>,
}

pub(crate) const CART: Who = Who { node: ("shop", "cart-0"), id: Some("spiffe://cluster.local/ns/shop/sa/cart") };

pub(crate) const WORKLOADS: &str = "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-0, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: cart}
";

pub(crate) fn policy(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{action: DENY, rules: [{{}}]}}\n"
    )
}

#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

/// A running server and its directory.
pub(crate) struct Mesh {
    pub(crate) home: TempDir,
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    server: Option<Server>,
}

/// One life of the server.
struct Server {
    handle: Handle,
    registry: Registry,
    stop: CancellationToken,
    control: JoinHandle<()>,
    listener: JoinHandle<()>,
}

impl Mesh {
    /// A server over `config/` with these files beside the workloads.
    pub(crate) async fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, |_| {}, Arc::new(SystemClock)).await
    }

    pub(crate) async fn start_with(
        files: &[(&str, &str)],
        configure: impl FnOnce(&mut ControlConfig),
        clock: Arc<dyn Clock>,
    ) -> Self {
        let home = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(home.path().join("config")).expect("create");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut mesh = Self { home, authority: Authority::new(), address, server: None };
        mesh.write("workloads.yaml", WORKLOADS);
        for (name, text) in files {
            mesh.write(name, text);
        }
        mesh.serve_with(configure, clock).await;
        mesh
    }

    /// Starts the server again where it was.
    pub(crate) async fn serve(&mut self) {
        self.serve_with(|_| {}, Arc::new(SystemClock)).await;
    }

    async fn serve_with(&mut self, configure: impl FnOnce(&mut ControlConfig), clock: Arc<dyn Clock>) {
        let mut config = ControlConfig::new(self.config_dir());
        configure(&mut config);
        let mut registry = Registry::default();
        let control = Control::new(config, clock, &mut registry);
        let handle = control.handle();
        let stop = CancellationToken::new();
        let (address, listener) = serve(&self.authority, self.address, handle.service(), stop.clone()).await;
        self.address = address;
        let control = tokio::spawn(control.run(stop.clone()));
        self.server = Some(Server { handle, registry, stop, control, listener });
    }

    pub(crate) fn config_dir(&self) -> PathBuf {
        self.home.path().join("config")
    }

    /// Writes a file of the directory as an editor does that truncates and writes.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.config_dir().join(name), text).expect("write");
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.server.as_ref().expect("a running server").handle
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.handle().ready().borrow()
    }

    /// Waits until the server's status has what `pick` looks for.
    pub(crate) fn until<T>(&self, what: &str, pick: impl Fn(&ControlStatus) -> Option<T>) -> T {
        tokio::task::block_in_place(|| {
            poll(what, || {
                let status = self.handle().status();
                pick(&status).ok_or((status.problem, status.proxies))
            })
        })
    }

    /// Value of a metric by its whole name, labels included.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        let server = self.server.as_ref().expect("a running server");
        prometheus_client::encoding::text::encode(&mut text, &server.registry).expect("encode");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} in:\n{text}"))
    }

    pub(crate) fn proxy(&self, who: Who) -> Proxy {
        self.start_proxy(who, &format!("state-{}", who.node.1), None)
    }

    /// A proxy that cannot take a snapshot which holds `word`.
    pub(crate) fn proxy_refusing(&self, who: Who, word: &'static str) -> Proxy {
        self.start_proxy(who, &format!("state-{}", who.node.1), Some(word))
    }

    pub(crate) fn start_proxy(&self, who: Who, state: &str, refused: Option<&'static str>) -> Proxy {
        let offers = Arc::new(AtomicUsize::new(0));
        let apply: Apply = {
            let offers = offers.clone();
            Arc::new(move |snapshot| {
                offers.fetch_add(1, Ordering::SeqCst);
                match refused {
                    Some(word) if holds(snapshot, &format!("name: {word},")) => Err(format!("does not take {word}")),
                    _ => Ok(()),
                }
            })
        };
        let config = ClientConfig {
            backoff_max: Duration::from_millis(200),
            ..ClientConfig::new(who.node.0, who.node.1, self.home.path().join(state))
        };
        let channels = self.authority.channels(self.address, who.id);
        let client = ControlClient::new(config, channels, apply, Arc::new(SystemClock), &mut Registry::default());
        let client = client.expect("client");
        let (snapshots, status, stop) = (client.snapshots(), client.status(), CancellationToken::new());
        let task = tokio::spawn(client.run(stop.clone()));
        Proxy { snapshots, status, offers, stop, task }
    }

    /// The server's sudden death: nothing is said to anybody.
    pub(crate) async fn kill(&mut self) {
        let server = self.server.take().expect("a running server");
        server.listener.abort();
        server.control.abort();
        let _ = server.listener.await;
        let _ = server.control.await;
    }

    /// The server's orderly end.
    pub(crate) async fn stop(mut self) {
        self.stop_server().await;
    }

    pub(crate) async fn stop_server(&mut self) {
        let server = self.server.take().expect("a running server");
        server.stop.cancel();
        server.control.await.expect("control plane stops");
        let ended = tokio::time::timeout(Duration::from_secs(20), server.listener).await;
        ended.expect("listener stops in time").expect("listener stops");
    }
}

/// A running client.
pub(crate) struct Proxy {
    snapshots: watch::Receiver<Option<Arc<RawSnapshot>>>,
    pub(crate) status: watch::Receiver<ClientStatus>,
    offers: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn holds(snapshot: &RawSnapshot, text: &str) -> bool {
    snapshot.documents.iter().any(|document| document.text.contains(text))
}

impl Proxy {
    /// Waits for a snapshot with the policy `name`.
    pub(crate) async fn until_holding(&mut self, name: &str) {
        let text = format!("name: {name},");
        let held = |snapshot: &Option<Arc<RawSnapshot>>| snapshot.as_ref().is_some_and(|one| holds(one, &text));
        let waited = tokio::time::timeout(Duration::from_secs(30), self.snapshots.wait_for(held)).await.is_ok();
        if !waited {
            panic!("no snapshot with {name}; status: {:?}; last: {:?}", *self.status.borrow(), self.snapshots.borrow());
        }
    }

    /// Waits for a status.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&ClientStatus) -> bool) -> ClientStatus {
        let waited = tokio::time::timeout(Duration::from_secs(30), self.status.wait_for(|one| condition(one))).await;
        match waited.map(|status| status.expect("the client runs").clone()) {
            Ok(status) => status,
            Err(_) => panic!("not seen: {what}; last status: {:?}", *self.status.borrow()),
        }
    }

    pub(crate) async fn until_problem(&mut self, part: &str) {
        self.until(part, |status| status.problem.as_ref().is_some_and(|problem| problem.contains(part))).await;
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        self.snapshots.borrow().as_ref().is_some_and(|one| holds(one, &format!("name: {name},")))
    }

    pub(crate) fn revision(&self) -> Option<String> {
        self.snapshots.borrow().as_ref().map(|snapshot| snapshot.revision.clone())
    }

    /// How many snapshots were offered to this proxy.
    pub(crate) fn offers(&self) -> usize {
        self.offers.load(Ordering::SeqCst)
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("client stops");
    }
}
