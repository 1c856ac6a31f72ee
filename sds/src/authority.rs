//! One call to the certificate authority: Istio's `CreateCertificate`, over a TLS connection of its own.
//!
//! Renewals are half a certificate's life apart, so no connection is kept between them; each one is made with the
//! trust and the certificate of that moment, which also picks up a changed bundle file or a moved server.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{VerifyError, tls};
use palisade_wire::channel::{self, ChannelError};
use palisade_wire::istio_ca::IstioCertificateRequest;
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls::{CertificateError, ClientConfig};
use tonic::metadata::MetadataValue;
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::{Code, Request, Status};

use crate::config::AgentConfig;
use crate::token::JoinToken;

/// For the connection, the handshake and the call together.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server cannot silence its agents for longer.
const LONGEST_PUSHBACK: Duration = Duration::from_secs(300);

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server's address or name cannot be one.
    #[error("the server cannot be called")]
    Address(#[source] ChannelError),
    /// The token cannot stand in a header.
    #[error("the join token cannot be sent")]
    Token(#[source] InvalidMetadataValue),
    /// The server said no, and will say it again.
    #[error("the server refused")]
    Refused(#[source] Box<Status>),
    /// Whoever answers under the server's name shows a certificate that no root of ours vouches for. It is never trusted.
    #[error(
        "the server is not recognised: none of the roots that this agent trusts vouches for its certificate; if the authority was \
         made anew, start the agent with an empty data directory and a new join token"
    )]
    Unrecognised(#[source] Box<Status>),
    /// The server could not be reached, did not answer, or cannot issue now.
    #[error("the server did not issue")]
    Failed(#[source] Box<Status>),
}

/// Sends a certificate request and gives back the elements of the answer, unchecked.
///
/// # Errors
/// [`CallError`]; only [`CallError::Refused`] is final.
pub(crate) async fn create_certificate(
    config: &AgentConfig,
    tls: Arc<ClientConfig>,
    token: Option<&JoinToken>,
    csr: String,
) -> Result<Vec<String>, CallError> {
    let channel = channel::tls(&config.server, config.certificate_name(), tls).map_err(CallError::Address)?;
    let mut request = Request::new(IstioCertificateRequest {
        csr,
        validity_duration: config.lifetime.map_or(0, |life| i64::try_from(life.as_secs()).unwrap_or(i64::MAX)),
        metadata: None,
    });
    request.set_timeout(DEADLINE);
    if let Some(token) = token {
        let mut header =
            MetadataValue::try_from(format!("Bearer {}", token.secret_text())).map_err(CallError::Token)?;
        header.set_sensitive(true);
        request.metadata_mut().insert("authorization", header);
    }
    let mut client = IstioCertificateServiceClient::new(channel);
    let answer = tokio::time::timeout(DEADLINE, client.create_certificate(request))
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    answer.map(|answer| answer.into_inner().cert_chain).map_err(judge)
}

/// When a server that is busy wants to be asked again (gRPC retry pushback); five minutes at most.
pub(crate) fn pushback(status: &Status) -> Option<Duration> {
    let text = status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?;
    text.parse().ok().map(|wish| Duration::from_millis(wish).min(LONGEST_PUSHBACK))
}

/// Which refusals are final: asking the same again cannot help.
fn judge(status: Status) -> CallError {
    let status = Box::new(status);
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unimplemented => CallError::Refused(status),
        _ if tls_error(&status).is_some_and(is_of_unknown_root) => CallError::Unrecognised(status),
        _ => CallError::Failed(status),
    }
}

/// What TLS said, if the call did not get further.
fn tls_error(status: &Status) -> Option<&rustls::Error> {
    let mut source = status.source();
    while let Some(error) = source {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inside.and_then(|inside| inside.downcast_ref()).or_else(|| error.downcast_ref()) {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn is_of_unknown_root(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
        || matches!(tls::verify_error(error), Some(VerifyError::RootNotPinned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_is_asked_when_it_wishes() {
        let status = |wish: &'static str| {
            let mut status = Status::resource_exhausted("busy");
            status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from_static(wish));
            pushback(&status)
        };
        assert_eq!(status("1500"), Some(Duration::from_millis(1500)));
        assert_eq!(status("99999999"), Some(LONGEST_PUSHBACK));
        assert_eq!((status("-1"), status("soon"), pushback(&Status::internal(""))), (None, None, None));
    }
}
