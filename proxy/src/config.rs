//! `palisade proxy --config FILE`: whose proxy it is, its ports, and where identity and policy come from.

mod map;
mod node;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use palisade_identity::TrustDomain;
use palisade_policies::{AppProtocol, MeshConfig, Workload};

/// A complete, checked configuration.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Whose proxy this is.
    pub workload: Workload,
    /// Ports that take traffic for the application.
    pub inbound: Vec<InboundConfig>,
    /// Ports that take traffic of the application.
    pub outbound: Vec<OutboundConfig>,
    /// Trust domain of the certificate; `cluster.local` unless told otherwise.
    pub trust_domain: TrustDomain,
    /// Where the certificate comes from.
    pub identity: IdentityConfig,
    /// The control plane, when there is one.
    pub server: Option<ServerConfig>,
    /// Where policies and workloads come from.
    pub resources: ResourcesConfig,
    /// Admin address (status); loopback by default.
    pub admin: SocketAddr,
    /// Metrics address.
    pub metrics: SocketAddr,
    /// Readiness address.
    pub readiness: SocketAddr,
    /// Last good SVID and snapshot, and the audit spool.
    pub state_dir: PathBuf,
    /// Bounds against hostile or broken peers.
    pub limits: Limits,
}

/// One port for the application's callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The application.
    pub forward: SocketAddr,
    /// What is spoken there; none means what the service's port says, else detected.
    pub protocol: Option<AppProtocol>,
}

/// One port for the application's own calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Service host.
    pub host: String,
    /// Service port.
    pub port: u16,
}

/// Where the proxy's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityConfig {
    /// An agent inside this process asks the server.
    Agent(AgentConfig),
    /// PEM files, read again when they change.
    Files(FilesConfig),
}

/// How the embedded agent gets its first certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentConfig {
    /// File with a join token, needed until the first certificate is kept.
    pub join_token: Option<PathBuf>,
    /// PEM file with the roots that the server is checked against; none means the root pinned in the join token.
    pub trust_bundle: Option<PathBuf>,
    /// Serve the Workload API and SDS on this Unix socket, too.
    pub socket: Option<PathBuf>,
    /// Unix users that may fetch from the socket; empty means our own.
    pub allowed_uids: Vec<u32>,
}

/// PEM files of a certificate kept by somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesConfig {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PKCS#8 private key.
    pub private_key: PathBuf,
    /// Roots of the trust domain.
    pub trust_bundle: PathBuf,
}

/// The control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// `host:port`.
    pub address: String,
    /// Name in its certificate, when it differs from the address.
    pub name: Option<String>,
}

/// Where policies and workloads come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourcesConfig {
    /// The server pushes them.
    Server,
    /// A directory of the same YAML (standalone).
    Directory {
        /// Directory, watched.
        directory: PathBuf,
        /// MeshConfig file, where it is not `mesh.yaml` in the directory.
        mesh: Option<PathBuf>,
    },
}

/// Bounds against hostile or broken peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of the application's callers and of the application together.
    pub max_connections: usize,
    /// Longest request head, bytes; over it 431.
    pub max_head: usize,
    /// A TLS handshake takes at most this long.
    pub handshake_timeout: Duration,
    /// A request head arrives within this time.
    pub header_timeout: Duration,
    /// Where it is unknown who speaks first, this long is waited for the client's first bytes.
    pub detect_timeout: Duration,
    /// An idle HTTP connection is closed after this time.
    pub idle_timeout: Duration,
    /// Connecting to the application or another proxy takes at most this long.
    pub connect_timeout: Duration,
    /// An idle pooled connection is kept this long.
    pub pool_idle_timeout: Duration,
    /// No mTLS connection gets older than this.
    pub max_connection_age: Duration,
    /// Concurrent HTTP/2 streams a connection.
    pub max_streams: u32,
    /// What is under way at shutdown may take this long.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 20_000,
            max_head: 60 * 1024,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(15),
            detect_timeout: Duration::from_millis(300),
            idle_timeout: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(5),
            pool_idle_timeout: Duration::from_secs(60),
            max_connection_age: Duration::from_secs(24 * 3600),
            max_streams: 200,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// One mistake in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// Path of the field, for example `inbound[0].listen`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

/// Every mistake of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file as named by the caller.
    pub file: String,
    /// In the order of the file; at least one.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, p) in self.problems.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}:{}: error {}: {}; fix: {}", self.file, p.line, p.column, p.field, p.message, p.fix)?;
        }
        Ok(())
    }
}

impl ProxyConfig {
    /// Reads the YAML in `text`; `file` names it in messages.
    ///
    /// # Errors
    /// All mistakes at once: unknown fields, wrong types, missing or contradictory settings, each with its place.
    pub fn parse(file: &str, text: &str) -> Result<ProxyConfig, ConfigError> {
        read::config(text).map_err(|problems| ConfigError { file: file.to_owned(), problems })
    }

    /// A configuration of these listeners with defaults for the rest, certificates and resources wired by the caller.
    #[must_use]
    pub fn of(workload: Workload, inbound: Vec<InboundConfig>, outbound: Vec<OutboundConfig>) -> ProxyConfig {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        ProxyConfig {
            workload,
            inbound,
            outbound,
            trust_domain: MeshConfig::default().trust_domain,
            identity: IdentityConfig::Agent(AgentConfig::default()),
            server: None,
            resources: ResourcesConfig::Server,
            admin: loopback(15000),
            metrics: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 15020)),
            readiness: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 15021)),
            state_dir: PathBuf::from("/var/lib/palisade/proxy"),
            limits: Limits::default(),
        }
    }
}

/// Labels as the resources have them.
pub(crate) type Labels = BTreeMap<String, String>;
