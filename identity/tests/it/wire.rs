//! Two rustls connections and the bytes between them.

use std::sync::Arc;

use palisade_identity::tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, CommonState, ConnectionCommon, DigitallySignedStruct, Error, ServerConfig,
    ServerConnection, SignatureScheme,
};

use crate::certs::{FixedClock, NOW};

pub(crate) struct Outcome {
    pub(crate) client: Result<ClientConnection, Error>,
    pub(crate) server: Result<ServerConnection, Error>,
}

/// A whole handshake, both sides at [`NOW`].
pub(crate) fn handshake(mut client: ClientConfig, mut server: ServerConfig, name: &'static str) -> Outcome {
    client.time_provider = tls::time_provider(Arc::new(FixedClock(NOW)));
    server.time_provider = tls::time_provider(Arc::new(FixedClock(NOW)));
    run(&Arc::new(client), &Arc::new(server), name)
}

/// As [`handshake`], the client by its own clock.
pub(crate) fn connect(client: ClientConfig, mut server: ServerConfig, name: &'static str) -> Outcome {
    server.time_provider = tls::time_provider(Arc::new(FixedClock(NOW)));
    run(&Arc::new(client), &Arc::new(server), name)
}

pub(crate) fn run(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &'static str) -> Outcome {
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    // Six flights are more than any handshake has, and what comes after it (tickets) is delivered too.
    for _ in 0..6 {
        pass(&mut client, &mut server, &mut server_error);
        pass(&mut server, &mut client, &mut client_error);
    }
    let client = client_error.map_or(Ok(client), Err);
    let server = server_error.map_or(Ok(server), Err);
    Outcome { client, server }
}

/// Carries what `from` has to say to `to`; a side that failed still sends its alert but reads nothing more.
fn pass<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>, failed: &mut Option<Error>)
where
    ConnectionCommon<A>: std::ops::Deref<Target = CommonState>,
{
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() && failed.is_none() {
        to.read_tls(&mut rest).unwrap();
        *failed = to.process_new_packets().err();
    }
}

/// A client that looks at nothing: to reach a server's own checks.
#[derive(Debug)]
pub(crate) struct TrustAnything;

impl ServerCertVerifier for TrustAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}
