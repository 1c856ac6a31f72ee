//! How many renewals a CPU-second of the authority makes, each durable before its answer, over gRPC on open mTLS connections.
//!
//! `cargo run --release -p palisade-ca --example renewals [SECONDS]`. The authority is a process of its own, whose user and
//! system time is read from the kernel around the measured window; P-256 throughout, 64 requests under way on 4 connections.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade_ca::{Authority, CaConfig, CaService};
use palisade_identity::tls;
use palisade_identity::{
    Clock, Identity, PrivateKey, SpiffeId, TrustBundle, TrustBundles, TrustDomain, UnixTime, X509Svid,
};
use palisade_wire::channel;
use palisade_wire::istio_ca::IstioCertificateRequest;
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use palisade_wire::serve::{self, Limits};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 16;
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const H2: &[&[u8]] = &[b"h2"];

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

fn main() -> Outcome<()> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("serve") {
        // One thread, as one core: the figure is per CPU-second.
        return tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(authority());
    }
    let seconds = argument.map_or(Ok(5), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(Duration::from_secs(seconds)))
}

/// The measured process. Says where it is and a token on standard output, and ends with its standard input.
async fn authority() -> Outcome<()> {
    use std::io::Write;
    let dir = tempfile::tempdir()?;
    let authority =
        Authority::open(CaConfig::new(dir.path(), TrustDomain::parse("cluster.local")?), Arc::new(SystemClock)).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let token = authority.create_join_token(&SpiffeId::parse(WEB)?, Duration::ZERO).await?;
    writeln!(std::io::stdout(), "{}\n{}", listener.local_addr()?, *token.token)?;
    let (routes, shutdown) =
        (Routes::new(CaService::new(Arc::clone(&authority)).into_server()), CancellationToken::new());
    let closing = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        closing.cancel();
    });
    serve::tls(listener, authority, routes, Limits::default(), shutdown).await;
    Ok(())
}

async fn measure(window: Duration) -> Outcome<()> {
    let mut child =
        Command::new(std::env::current_exe()?).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let address = lines.next().ok_or("no address")??;
    let token = lines.next().ok_or("no token")??;
    let identity = enrol(&address, &token).await?;
    let request = csr(&KeyPair::generate()?)?;
    let mut tasks = tokio::task::JoinSet::new();
    let (warm, cpu) = (Instant::now() + Duration::from_secs(1), Duration::ZERO);
    for _ in 0..CONNECTIONS {
        let config = tls::client_config_named(Some(&identity), &own(&identity)?, H2)?;
        let client = IstioCertificateServiceClient::new(channel::tls(&address, "localhost", Arc::new(config))?);
        for _ in 0..IN_FLIGHT {
            tasks.spawn(renew(client.clone(), request.clone(), warm, window));
        }
    }
    tokio::time::sleep_until(warm.into()).await;
    let before = used(&child)?;
    tokio::time::sleep(window).await;
    let cpu = cpu + used(&child)?.saturating_sub(before);
    let mut times = Vec::new();
    for done in tasks.join_all().await {
        times.extend(done?);
    }
    report(times, window, cpu);
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

fn report(mut times: Vec<Duration>, window: Duration, cpu: Duration) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    let count = u32::try_from(times.len()).map_or(f64::MAX, f64::from);
    eprintln!(
        "{} renewals in {window:?}: {:.0} per second, {:.0} per CPU-second ({:.0} us each), p50 {:?}, p99 {:?}",
        times.len(),
        count / window.as_secs_f64(),
        count / cpu.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / count,
        at(50),
        at(99),
    );
}

/// Renews until the window ends; the times of those begun within it.
async fn renew(
    mut client: IstioCertificateServiceClient<Channel>,
    csr: String,
    warm: Instant,
    window: Duration,
) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    while Instant::now() < warm + window {
        let began = Instant::now();
        client.create_certificate(message(csr.clone())).await?;
        if began >= warm {
            times.push(began.elapsed());
        }
    }
    Ok(times)
}

/// User and system time of the authority, all threads.
fn used(child: &Child) -> Outcome<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).ok_or("no times");
    let ticks = ticks(11)? + ticks(12)?;
    Ok(Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second()))
}

async fn enrol(address: &str, token: &str) -> Outcome<Identity> {
    let hex = token.rsplit('.').next().unwrap_or_default();
    let mut root = [0; 32];
    for (byte, digits) in root.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits)?, 16)?;
    }
    let channel = channel::tls(address, "localhost", Arc::new(tls::client_config_pinned(root, H2)?))?;
    let key = KeyPair::generate()?;
    let mut request = tonic::Request::new(message(csr(&key)?));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await?.into_inner();
    let (roots, chain) = answer.cert_chain.split_last().ok_or("an empty answer")?;
    let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes())).collect::<Result<_, _>>()?;
    let bundle = TrustBundle::from_pem(TrustDomain::parse("cluster.local")?, roots.as_bytes())?;
    let svid = X509Svid::new(chain, PrivateKey::from_pkcs8_der(key.serialize_der())?)?;
    Ok(Identity { svid: Arc::new(svid), bundles: Arc::new(TrustBundles::from_iter([bundle])) })
}

fn own(identity: &Identity) -> Outcome<TrustBundle> {
    Ok(identity.bundles.get("cluster.local").ok_or("no bundle")?.clone())
}

fn csr(key: &KeyPair) -> Outcome<String> {
    Ok(CertificateParams::default().serialize_request(key)?.pem()?)
}

fn message(csr: String) -> IstioCertificateRequest {
    IstioCertificateRequest { csr, ..IstioCertificateRequest::default() }
}
