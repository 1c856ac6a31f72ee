//! How extension providers are reached: as any other service is called from here, over mTLS where the endpoint has an
//! identity, and by address or DNS where the registry does not know the name.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use palisade_authz::provider::{Dial, Dialing, Io, TcpDial};
use palisade_policies::registry::ServiceRoute;
use palisade_policies::{MeshConfig, ProviderKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::certs::Alpn;
use crate::connect::{self, Connected};
use crate::core::Core;
use crate::endpoint::EndpointKey;
use crate::stream::Stream;

/// Endpoints tried before a provider counts as not reached.
const TRIES: usize = 3;

/// Opens connections to providers by the newest snapshot and the newest certificate. Made before the proxy is, because
/// snapshots are: until a proxy uses one of them, nobody can be reached.
#[derive(Debug, Default)]
pub(crate) struct Dialler {
    core: Mutex<Weak<Core>>,
    others: TcpDial,
    turn: AtomicUsize,
}

impl Dialler {
    /// From now on connections are opened as this proxy.
    pub(crate) fn serve(&self, core: &Arc<Core>) {
        *self.core.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(core);
    }

    async fn open(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let core = core.ok_or(io::ErrorKind::NotConnected)?;
        let snapshot = core.snapshot.load_full();
        let route = snapshot.as_ref().and_then(|now| now.registry().service(host, port).cloned());
        match (route, snapshot) {
            (Some(route), Some(snapshot)) => self.to_service(&core, &route, spoken(&snapshot.mesh, host, port)).await,
            _ => self.others.dial(host, port).await,
        }
    }

    async fn to_service(&self, core: &Arc<Core>, route: &ServiceRoute, alpn: Alpn) -> io::Result<Box<dyn Io>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut failure = io::Error::new(io::ErrorKind::NotConnected, format!("`{}` has no endpoint", route.host));
        for n in 0..route.endpoints.len().min(TRIES) {
            let at = turn.wrapping_add(n) % route.endpoints.len();
            let Some(one) = route.endpoints.get(at) else { continue };
            let key = EndpointKey { address: one.address, identity: one.identity.clone() };
            match connect::open(core, &core.endpoints.get(key), alpn).await {
                Ok((stream, connected)) => {
                    return Ok(Box::new(Lasting { stream, connected, core: Arc::downgrade(core) }));
                }
                Err(error) => failure = io::Error::other(error),
            }
        }
        Err(failure)
    }
}

impl Dial for Dialler {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(self.open(host, port))
    }
}

/// A connection that carries nothing new once its certificates are over: ours by rotation, the peer's by its end. Whoever
/// writes to it finds it broken, and asks again on a fresh one.
struct Lasting {
    stream: Stream,
    connected: Connected,
    core: Weak<Core>,
}

impl Lasting {
    fn stands(&self) -> io::Result<()> {
        let stands = |core: Arc<Core>| {
            let ours = self.connected.epoch == 0 || self.connected.epoch == core.certs.number();
            ours && self.connected.expires > core.now()
        };
        if self.core.upgrade().is_some_and(stands) { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
    }
}

impl AsyncRead for Lasting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lasting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stands()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stands()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What providers of that service speak: the proxy on the other side wants to know in the handshake.
fn spoken(mesh: &MeshConfig, host: &str, port: u16) -> Alpn {
    let is_grpc = mesh.extension_providers.iter().any(|provider| match &provider.kind {
        ProviderKind::ExtAuthzGrpc(grpc) => {
            let bare = grpc.service.rsplit('/').next().unwrap_or_default();
            grpc.port == port && bare.eq_ignore_ascii_case(host)
        }
        ProviderKind::ExtAuthzHttp(_) | ProviderKind::Other(_) => false,
    });
    if is_grpc { Alpn::IstioH2 } else { Alpn::IstioHttp1 }
}
