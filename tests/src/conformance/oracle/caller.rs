//! One connection to a listener: its addresses, its TLS, its requests.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::hello::hello;
use super::{http, proxy_protocol};
use crate::conformance::identities::Identities;
use crate::conformance::scene::{Ask, Call, Scene, Tls, input_line};
use crate::conformance::translate::Identity;

/// Longest wait for an answer of an idle process on the same machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a connection that is not TLS: enough of them for Envoy to see that.
const PLAIN: &[u8] = b"palisade conformance\n";

/// Status and facts of each request, or of the connection.
pub(super) type Heard = Vec<(u16, Value)>;

/// Who calls where.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) scene: &'a Scene,
    /// Which of the calls to the scene this is.
    pub(super) number: usize,
    pub(super) call: &'a Call,
    pub(super) address: SocketAddr,
    pub(super) identities: &'a Identities,
}

pub(super) trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// The requests of one call on their way. One at a time: Envoy forgets pipelined requests behind the second.
pub(super) struct Talk<'a> {
    caller: Caller<'a>,
    stream: Option<BufReader<Box<dyn Duplex + Send>>>,
    heard: Heard,
    failures: u32,
}

impl<'a> Talk<'a> {
    pub(super) fn new(caller: Caller<'a>) -> Self {
        Self { caller, stream: None, heard: Vec::with_capacity(caller.call.asks.len()), failures: 0 }
    }

    /// All answers, once [`Talk::say`] has nothing more to say.
    pub(super) fn into_heard(self) -> Heard {
        self.heard
    }

    fn next(&self) -> Option<&'a Ask> {
        self.caller.call.asks.get(self.heard.len())
    }

    /// Sends the next request; `false` where there is none.
    ///
    /// # Errors
    /// When no connection can be opened.
    pub(super) fn say(&mut self) -> Result<bool> {
        let Some(ask) = self.next() else { return Ok(false) };
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(BufReader::new(self.caller.connect()?.0)),
        };
        let mut bytes = Vec::new();
        let which = format!("{}-{}", self.caller.number, self.heard.len());
        http::write_request(self.caller.scene, ask, &which, &mut bytes);
        if http::send(stream.get_mut(), &bytes).is_err() {
            self.stream = None;
        }
        Ok(true)
    }

    /// Waits for its answer.
    ///
    /// # Errors
    /// When none comes on a fresh connection either, or one that is not HTTP.
    pub(super) fn hear(&mut self) -> Result<()> {
        let Some(ask) = self.next() else { return Ok(()) };
        let response = self.stream.as_mut().map(http::read_response).transpose()?.flatten();
        let Some(response) = response else {
            self.stream = None;
            self.failures += 1;
            if self.failures > 2 {
                bail!("no answer to {}", input_line(self.caller.scene, self.caller.call, ask, None));
            }
            return Ok(());
        };
        self.failures = 0;
        self.heard.push((response.status, response.facts));
        // Behind a CONNECT the connection is a tunnel.
        if response.closes || ask.target.is_none() {
            self.stream = None;
        }
        Ok(())
    }
}

impl Caller<'_> {
    /// Opens a connection without HTTP: whether it echoes, and the address by which Envoy logs it.
    ///
    /// # Errors
    /// When it neither echoes nor ends in time.
    pub(super) fn connection(&self) -> Result<(bool, SocketAddr)> {
        let (mut stream, local) = self.connect()?;
        let bytes = match (self.scene.door.tls, &self.call.sni) {
            (Tls::Passed, Some(name)) => hello(name.as_bytes()),
            _ => PLAIN.to_vec(),
        };
        // A refusal may come before all is sent.
        let _ = http::send(&mut stream, &bytes);
        let mut echo = [0; 1];
        let echoed = match stream.read(&mut echo) {
            Ok(count) => count == 1,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bail!("no echo and no end: {error}"),
            Err(_) => false,
        };
        Ok((echoed, local))
    }

    fn connect(&self) -> Result<(Box<dyn Duplex + Send>, SocketAddr)> {
        let domain = socket2::Domain::for_address(self.address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(self.call.source, 0).into())?;
        socket.connect(&self.address.into()).with_context(|| format!("cannot connect to {}", self.address))?;
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let local = stream.local_addr()?;
        stream.write_all(&self.preamble())?;
        if self.scene.door.tls != Tls::Ended {
            return Ok((Box::new(stream), local));
        }
        let principal = self.call.principal.as_deref().filter(|_| self.scene.door.identity == Identity::Certificate);
        let config = self.identities.client(principal)?;
        let name = match &self.call.sni {
            Some(name) => ServerName::try_from(name.clone())?,
            // An address is never sent as a server name.
            None => ServerName::IpAddress(self.address.ip().into()),
        };
        let connection = ClientConnection::new(config, name)?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.conn.complete_io(&mut stream.sock).context("no handshake")?;
        Ok((Box::new(stream), local))
    }

    fn preamble(&self) -> Vec<u8> {
        let Some((client, destination)) = self.call.proxied else { return Vec::new() };
        let peer = self.call.principal.as_deref().filter(|_| self.scene.door.identity == Identity::FilterState);
        let peer = peer.map(|principal| format!("spiffe://{principal}"));
        let metadata = self.call.metadata.as_ref().and_then(Value::as_str);
        let fields = [(proxy_protocol::PEER, peer.as_deref()), (proxy_protocol::METADATA, metadata)];
        let fields: Vec<(u8, &[u8])> =
            fields.iter().filter_map(|(kind, text)| Some((*kind, (*text)?.as_bytes()))).collect();
        proxy_protocol::header(client, destination, &fields)
    }
}
