//! What an agent is told. Plain data: flags and files are the binary's to parse.

use std::path::PathBuf;
use std::time::Duration;

use palisade_identity::{SpiffeId, TrustDomain};

use crate::files::FilesConfig;
use crate::token::JoinToken;

/// Configuration of an [`Agent`](crate::Agent).
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The server's certificate port, `host:port`.
    pub server: String,
    /// The DNS name or IP address that the server's certificate must carry; the host of `server` if unset.
    pub server_name: Option<String>,
    /// The trust domain that the agent belongs to. Another one's identity is never installed.
    pub trust_domain: TrustDomain,
    /// How the agent recognises the server before it has an identity.
    pub first_trust: FirstTrust,
    /// What it shows the server when it has no valid certificate. `None`: only a stored identity can start it.
    pub join_token: Option<JoinTokenSource>,
    /// The one ID to accept; without it the ID of the first certificate is kept for ever.
    pub expected_id: Option<SpiffeId>,
    /// Lifetime to ask for; the server's default if unset.
    pub lifetime: Option<Duration>,
    /// Where identity, key and bundle are kept; one agent each.
    pub state_dir: PathBuf,
    /// The socket of the Workload API and SDS; served only if set.
    pub socket: Option<PathBuf>,
    /// Users whose processes get the agent's own identity while there are no entries; empty means its own effective user.
    pub allowed_uids: Vec<u32>,
    /// Identities kept in files.
    pub files: Vec<FilesConfig>,
    /// The operator's socket (0600); served only if set.
    pub admin_socket: Option<PathBuf>,
}

/// How an agent without an identity recognises the server. There is no trust on first use.
#[derive(Debug, Clone)]
pub enum FirstTrust {
    /// PEM file with the roots that sign the server's certificate; read again at every attempt.
    BundleFile(PathBuf),
    /// The root whose hash the join token carries.
    JoinToken,
}

/// Where the join token is.
#[derive(Debug, Clone)]
pub enum JoinTokenSource {
    /// Given as it is.
    Inline(JoinToken),
    /// In a file, read again at every attempt.
    File(PathBuf),
}

impl AgentConfig {
    /// The name the server's certificate must carry.
    pub(crate) fn certificate_name(&self) -> &str {
        match &self.server_name {
            Some(name) => name,
            None => host_of(&self.server),
        }
    }

    /// Says what contradicts itself, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), CheckConfigError> {
        let port = self.server.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if host_of(&self.server).is_empty() || !matches!(port, Some(Ok(port)) if port != 0) {
            return Err(CheckConfigError::Server(self.server.clone()));
        }
        if matches!(self.first_trust, FirstTrust::JoinToken) && self.join_token.is_none() {
            return Err(CheckConfigError::NoJoinToken);
        }
        match &self.expected_id {
            Some(id) if id.trust_domain() != self.trust_domain => {
                Err(CheckConfigError::ForeignId { id: id.clone(), trust_domain: self.trust_domain.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CheckConfigError {
    /// The server's address is not `host:port`.
    #[error("server `{0}` is not `host:port`")]
    Server(String),
    /// The trust was to come from a join token that is not given.
    #[error("there is no identity yet and nothing to recognise the server by: give a join token or a trust bundle")]
    NoJoinToken,
    /// The expected ID is of another trust domain.
    #[error("expected identity `{id}` is not in trust domain `{}`", trust_domain.as_str())]
    ForeignId {
        /// The ID asked for.
        id: SpiffeId,
        /// The agent's trust domain.
        trust_domain: TrustDomain,
    },
}

/// The host of `host:port`, brackets of an IPv6 address removed.
fn host_of(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(server: &str) -> AgentConfig {
        AgentConfig {
            server: server.to_owned(),
            server_name: None,
            trust_domain: TrustDomain::parse("a.test").unwrap(),
            first_trust: FirstTrust::BundleFile("/bundle.pem".into()),
            join_token: None,
            expected_id: None,
            lifetime: None,
            state_dir: "/state".into(),
            socket: None,
            allowed_uids: Vec::new(),
            files: Vec::new(),
            admin_socket: None,
        }
    }

    #[test]
    fn the_name_is_the_host_unless_given() {
        assert_eq!(config("localhost:15012").certificate_name(), "localhost");
        assert_eq!(config("[::1]:15012").certificate_name(), "::1");
        let named = AgentConfig { server_name: Some("istiod.istio-system.svc".into()), ..config("10.0.0.1:1") };
        assert_eq!(named.certificate_name(), "istiod.istio-system.svc");
    }

    #[test]
    fn contradictions_are_named() {
        assert!(config("localhost:15012").check().is_ok());
        for server in ["", "localhost", "localhost:", ":1", "localhost:x", "localhost:0", "localhost:70000"] {
            assert!(matches!(config(server).check(), Err(CheckConfigError::Server(_))), "{server}");
        }
        let pinned = AgentConfig { first_trust: FirstTrust::JoinToken, ..config("a:1") };
        assert!(matches!(pinned.check(), Err(CheckConfigError::NoJoinToken)));
        let id = SpiffeId::parse("spiffe://b.test/ns/x/sa/y").unwrap();
        let foreign = AgentConfig { expected_id: Some(id), ..config("a:1") };
        let text = foreign.check().unwrap_err().to_string();
        assert_eq!(text, "expected identity `spiffe://b.test/ns/x/sa/y` is not in trust domain `a.test`");
    }
}
