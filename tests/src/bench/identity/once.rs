//! An agent that connects, asks once and goes: HTTP/2 without a channel's layers, so that one core can play thousands of them
//! and the server is what is measured.

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use prost::Message as _;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::scene::{Credential, Scene};

const METHOD: &str = "https://localhost/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Of a gRPC message: a flag, and the length in four bytes.
const PREFIX: usize = 5;

/// Ready when the certificate is there; the connection is closed after that, as a channel does it.
pub(super) async fn ask(scene: &Scene, credential: &Credential, round: usize) -> Result<()> {
    let stream = TcpStream::connect(scene.address()).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(scene.config(credential)?);
    let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let request = scene.request(credential, round)?;
    let bearer = request.metadata().get("authorization").cloned();
    let answer = exchange(client.ready().await?, &request.into_inner(), bearer).await?;
    answer.cert_chain.first().context("no certificate")?;
    Ok(())
}

async fn exchange(
    mut client: SendRequest<Bytes>,
    message: &IstioCertificateRequest,
    bearer: Option<tonic::metadata::AsciiMetadataValue>,
) -> Result<IstioCertificateResponse> {
    let mut request = http::Request::post(METHOD).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(bearer) = bearer {
        request = request.header("authorization", bearer.to_str()?);
    }
    let (response, mut body) = client.send_request(request.body(())?, false)?;
    let mut framed = BytesMut::with_capacity(PREFIX + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len())?);
    message.encode(&mut framed)?;
    body.send_data(framed.freeze(), true)?;
    let (mut parts, mut answer) = (response.await?.into_body(), BytesMut::new());
    while let Some(part) = parts.data().await {
        let part = part?;
        parts.flow_control().release_capacity(part.len())?;
        answer.extend_from_slice(&part);
    }
    // A refusal has trailers and no message.
    let message = answer.get(PREFIX..).context("the server refused")?;
    Ok(IstioCertificateResponse::decode(message)?)
}
