//! A server that can be killed, an enforcer that can be killed, and waiting that says what it last saw.

use std::fmt::Debug;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade_audit::{
    Authorizer, Connect, Event, Forwarder, ForwarderConfig, IngestService, NanoClock, Recorder, RecorderConfig,
    SpoolError, Store,
};
use palisade_wire::Caller;
use palisade_wire::audit::audit_ingest_server::{AuditIngest, AuditIngestServer};
use palisade_wire::audit::{Http, Kind, Party, Verdict};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Server as Transport};
use tonic::{Request, Status};

/// Polls until `done`, and fails with the last state after half a minute.
pub(crate) async fn eventually<T: Debug>(
    what: &str,
    mut state: impl AsyncFnMut() -> T,
    done: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let last = state().await;
        if done(&last) {
            return last;
        }
        assert!(Instant::now() < deadline, "{what}: {last:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A port that is free now, for a server that comes later.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Lets everybody be who he says.
pub(crate) fn anybody() -> Authorizer {
    Arc::new(|_, claimed| Ok(claimed.to_owned()))
}

/// A server in a runtime of its own, so that it can be killed with everything in it.
pub(crate) struct Server {
    runtime: Option<Runtime>,
    pub(crate) store: Store,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Registry,
}

impl Server {
    pub(crate) async fn start(file: &Path, address: SocketAddr, authorize: Authorizer) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let file = file.to_owned();
        let started = runtime.spawn(async move {
            let mut metrics = Registry::default();
            let store = Store::open(file, NanoClock::system()).await.unwrap();
            let service = IngestService::new(store.clone(), authorize, NanoClock::system(), &mut metrics);
            let address = serve(service.into_server(), address).await;
            (store, address, metrics)
        });
        let (store, address, metrics) = started.await.unwrap();
        Self { runtime: Some(runtime), store, address, metrics }
    }

    /// Ends it as `kill -9` would: every task is dropped where it stands.
    pub(crate) fn kill(mut self) {
        drop(self.store.clone());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An enforcer in a runtime of its own.
pub(crate) struct Enforcer {
    runtime: Option<Runtime>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Registry,
    stop: CancellationToken,
    spooler: Option<JoinHandle<Result<(), SpoolError>>>,
    forwarder: Option<JoinHandle<()>>,
}

impl Enforcer {
    pub(crate) fn start(config: &RecorderConfig, server: SocketAddr) -> Self {
        let forwarding = ForwarderConfig {
            back_off: Duration::from_millis(5),
            back_off_most: Duration::from_millis(20),
            flush: Duration::from_secs(20),
            ..ForwarderConfig::default()
        };
        Self::start_with(config, forwarding, server)
    }

    pub(crate) fn start_with(config: &RecorderConfig, forwarding: ForwarderConfig, server: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut metrics = Registry::default();
        let recording = Recorder::open(config, NanoClock::system(), &mut metrics).unwrap();
        let (recorder, spooler, forwarder): (_, _, Forwarder) = recording.forward(forwarding, connect(server));
        let stop = CancellationToken::new();
        let spooler = runtime.spawn(spooler.run(stop.clone()));
        let forwarder = runtime.spawn(forwarder.run(stop.clone()));
        Self { runtime: Some(runtime), recorder, metrics, stop, spooler: Some(spooler), forwarder: Some(forwarder) }
    }

    /// Stops in order; returns when both tasks have ended.
    pub(crate) async fn stop(mut self) -> Registry {
        self.stop.cancel();
        self.spooler.take().unwrap().await.unwrap().unwrap();
        self.forwarder.take().unwrap().await.unwrap();
        std::mem::take(&mut self.metrics)
    }

    /// Ends it as `kill -9` would, and waits until its hold on the directory is gone.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            tokio::task::block_in_place(|| runtime.shutdown_timeout(Duration::from_secs(10)));
        }
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn connect(server: SocketAddr) -> Connect {
    Arc::new(move || Box::pin(async move { Ok(Endpoint::from_shared(format!("http://{server}"))?.connect().await?) }))
}

/// Value of a metric's line, as it is exposed.
pub(crate) fn metric(registry: &Registry, line: &str) -> u64 {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no `{line}` in\n{text}")).parse().unwrap()
}

/// A decision as a proxy records it.
pub(crate) fn decision(number: u64) -> Event {
    let party = |namespace: &str, workload: &str, ip: &str| Party {
        principal: format!("cluster.local/ns/{namespace}/sa/{workload}"),
        namespace: namespace.into(),
        workload: workload.into(),
        ip: ip.into(),
        port: 8080,
        ..Party::default()
    };
    Event {
        time_ns: 1_700_000_000_000_000_000_u64.saturating_add(number),
        kind: Kind::Decision.into(),
        verdict: if number.is_multiple_of(3) { Verdict::Deny } else { Verdict::Allow }.into(),
        phase: "deny".into(),
        reason: "deny-matched".into(),
        policy: "ns[shop]-policy[no-refund]-rule[0]".into(),
        policy_file: "policies/shop.yaml".into(),
        policy_line: 12,
        revision: "r7".into(),
        source: Some(party("web", "front", "10.0.0.7")),
        destination: Some(party("shop", "payments", "10.0.0.9")),
        http: Some(Http {
            method: "GET".into(),
            host: "payments.shop".into(),
            path: format!("/item/{number}"),
            ..Http::default()
        }),
        protocol: "http".into(),
        transport: "mtls".into(),
        status: 200,
        duration_ns: number,
        ..Event::default()
    }
}

/// The same with an enforcer and numbers, for tests that write to the store themselves.
pub(crate) fn numbered(enforcer: &str, epoch: u64, sequence: u64) -> Event {
    Event { enforcer: enforcer.into(), epoch, sequence, ..decision(sequence) }
}

/// A gap event.
pub(crate) fn gap(enforcer: &str, epoch: u64, from: u64, to: u64, cause: &str) -> Event {
    Event {
        enforcer: enforcer.into(),
        epoch,
        sequence: from,
        time_ns: decision(from).time_ns,
        kind: Kind::Gap.into(),
        gap: Some(palisade_wire::audit::Gap { from_sequence: from, to_sequence: to, cause: cause.into() }),
        ..Event::default()
    }
}

/// Serves `service` with an empty caller on `address` until the runtime ends.
pub(crate) async fn serve<S: AuditIngest>(service: AuditIngestServer<S>, address: SocketAddr) -> SocketAddr {
    let listener = bind(address).await;
    let address = listener.local_addr().unwrap();
    let service = InterceptedService::new(service, |mut request: Request<()>| -> Result<Request<()>, Status> {
        request.extensions_mut().insert(Caller::default());
        Ok(request)
    });
    tokio::spawn(Transport::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Binds again to the address of a server that was killed.
async fn bind(address: SocketAddr) -> tokio::net::TcpListener {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match socket_bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn socket_bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(64)
}
