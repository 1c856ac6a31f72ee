//! HTTP/2 connections to one endpoint, and the few HTTP/1.1 ones for applications that want only that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::upload::Upload;
use super::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::certs::Alpn;
use crate::connect::{self, Connected};
use crate::core::Core;
use crate::endpoint::Endpoint;

/// The reason when an upstream that took the request gives no response.
const NO_ANSWER: &str = "upstream-reset";

/// Open HTTP/2 connections; one serves many requests.
#[derive(Debug, Default)]
pub(crate) struct H2Pool {
    open: Mutex<Vec<Open>>,
    /// One dials while the others wait: a burst makes one handshake.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Open {
    sender: client2::SendRequest<Upload>,
    connected: Connected,
}

impl H2Pool {
    /// Sends a request on a pooled connection. One that was not sent, because its connection was ending, goes to another.
    pub(crate) async fn request(
        &self,
        core: &Core,
        endpoint: &Endpoint,
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, &'static str> {
        for _ in 0..3 {
            let mut sender = self.sender(core, endpoint).await?;
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => {
                        tracing::debug!(error = %error.error(), "http/2 request failed");
                        return Err(NO_ANSWER);
                    }
                },
            }
        }
        Err(NO_ANSWER)
    }

    async fn sender(&self, core: &Core, endpoint: &Endpoint) -> Result<client2::SendRequest<Upload>, &'static str> {
        if let Some(sender) = self.usable(core, endpoint) {
            return Ok(sender);
        }
        let _dialling = self.dialling.lock().await;
        if let Some(sender) = self.usable(core, endpoint) {
            return Ok(sender);
        }
        let (stream, connected) = connect::open(core, endpoint, Alpn::IstioH2).await.map_err(|error| {
            tracing::debug!(%error, "connection failed upstream");
            error.reason()
        })?;
        let (sender, connection) = client2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| "upstream-http2")?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "http/2 connection to upstream ended");
            }
        });
        self.lock().push(Open { sender: sender.clone(), connected });
        Ok(sender)
    }

    fn usable(&self, core: &Core, endpoint: &Endpoint) -> Option<client2::SendRequest<Upload>> {
        let epoch = if endpoint.key.identity.is_some() { core.certs.number() } else { 0 };
        let now = core.now();
        let open = self.lock();
        let valid =
            |one: &&Open| one.connected.epoch == epoch && one.connected.expires > now && !one.sender.is_closed();
        open.iter().find(valid).map(|one| one.sender.clone())
    }

    /// Lets go of connections that are not used any more; their last streams end in their own time.
    pub(crate) fn sweep(&self, epoch: u64, now: u64) {
        self.lock()
            .retain(|one| one.connected.epoch == epoch && one.connected.expires > now && !one.sender.is_closed());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends an HTTP/2 client's request to an application that speaks HTTP/1.1 only, on a connection of its own.
pub(super) async fn http1(
    core: &Core,
    endpoint: &Arc<Endpoint>,
    request: Request<Upload>,
) -> Result<Response<Incoming>, &'static str> {
    let (stream, _) = connect::open(core, endpoint, Alpn::IstioHttp1).await.map_err(|error| error.reason())?;
    let (mut sender, connection) = client1::handshake(TokioIo::new(stream)).await.map_err(|_| NO_ANSWER)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "http/1.1 connection to upstream ended");
        }
    });
    sender.send_request(request).await.map_err(|_| NO_ANSWER)
}
