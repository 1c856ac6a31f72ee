//! The TLS server's side: read the ClientHello, choose, then shake hands, all before one deadline.
//!
//! The hello is read first because rustls refuses a client whose ALPN names do not overlap ours, and because under
//! PERMISSIVE another TLS (the application's own) has to pass through untouched.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::server::{Accepted, Acceptor};
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;

use crate::certs::Alpn;
use crate::wide::Wide;

/// A ClientHello fits, post-quantum key shares included.
const LONGEST_HELLO: usize = 64 * 1024;

/// A connection whose ClientHello was read.
pub(crate) struct Hello {
    accepted: Accepted,
    tcp: TcpStream,
    /// The bytes read, for passing them on untouched.
    raw: BytesMut,
    /// What we would answer with.
    pub(crate) alpn: Alpn,
    /// Server name, lower case as in DNS.
    pub(crate) sni: Option<Arc<str>>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello").field("alpn", &self.alpn).field("sni", &self.sni).finish_non_exhaustive()
    }
}

impl Hello {
    /// Reads it.
    ///
    /// # Errors
    /// The client sent no ClientHello (an alert was sent), or went away.
    pub(crate) async fn read(tcp: TcpStream) -> io::Result<Hello> {
        let mut acceptor = Acceptor::default();
        let mut raw = BytesMut::with_capacity(2048);
        loop {
            tcp.readable().await?;
            let before = raw.len();
            match tcp.try_read_buf(&mut raw) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e),
            }
            feed(&mut acceptor, raw.get(before..).unwrap_or_default())?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Hello::of(accepted, tcp, raw)),
                Ok(None) if raw.len() < LONGEST_HELLO => {}
                Ok(None) => return Err(io::Error::new(io::ErrorKind::InvalidData, "client hello is too long")),
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    alert.write(&mut bytes)?;
                    // The alert is a courtesy; the connection ends either way.
                    let _ = tcp.try_write(&bytes);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }

    fn of(accepted: Accepted, tcp: TcpStream, raw: BytesMut) -> Hello {
        let hello = accepted.client_hello();
        let alpn = hello.alpn().map_or(Alpn::None, |offers| Alpn::choose(offers.collect::<Vec<_>>().into_iter()));
        let sni = hello.server_name().map(|name| name.to_ascii_lowercase().into());
        Hello { accepted, tcp, raw, alpn, sni }
    }

    /// Shakes hands with this configuration.
    ///
    /// # Errors
    /// The client's certificate was refused, or the handshake failed otherwise.
    pub(crate) async fn finish(
        self,
        config: Arc<rustls::ServerConfig>,
    ) -> io::Result<tokio_rustls::server::TlsStream<Wide>> {
        StartHandshake::from_parts(self.accepted, Wide::new(self.tcp)).into_stream(config).await
    }

    /// The socket and the bytes read, for a connection that is not ours to terminate.
    pub(crate) fn untouched(self) -> (TcpStream, BytesMut) {
        (self.tcp, self.raw)
    }
}

fn feed(acceptor: &mut Acceptor, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes)? == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "client hello is too long"));
        }
    }
    Ok(())
}
