//! Envoy's external authorization, asked over a connection that the caller opened: whom to dial, and how long to wait,
//! is known elsewhere.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
pub use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use http::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower::Service;

/// A silent connection is pinged this often, so that a provider that vanished is noticed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// A ping unanswered for so long ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer's header list.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// Why a check has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The connection, or this one stream, ended before an answer began. On a connection that had been in use this may
    /// say no more than that the server went away: asking once more on a fresh one is safe.
    #[error("the connection ended before an answer")]
    Unanswered(#[source] Box<tonic::Status>),
    /// An answer began, and broke off, was too long, or was no protobuf message.
    #[error("the answer is broken")]
    Broken(#[source] Box<tonic::Status>),
    /// The server answered with an error of its own: the gRPC status code (never 0).
    #[error("the server answered with gRPC status {0}")]
    Status(i32),
}

/// The HTTP/2 connection to one authorization server; clones share it. It ends when the last clone is gone and nothing
/// is under way.
#[derive(Clone, Debug)]
pub struct Connection {
    sender: http2::SendRequest<Body>,
    origin: Uri,
}

impl Connection {
    /// Speaks HTTP/2 on `io`, driven by a task on the current tokio runtime. `origin` is the `http://authority` of the
    /// questions.
    ///
    /// # Errors
    /// The preface could not be written.
    pub async fn open<I>(io: I, origin: Uri) -> Result<Self, hyper::Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let (sender, driver) = builder.handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "connection to an authorization server failed");
            }
        });
        Ok(Self { sender, origin })
    }

    /// Whether questions can still be asked here, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Asks. `timeout` is only told to the server (`grpc-timeout`); `max_answer` bounds the answer's bytes.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub async fn check(
        &self,
        question: CheckRequest,
        timeout: Duration,
        max_answer: usize,
    ) -> Result<CheckResponse, CheckError> {
        let answered = Arc::new(AtomicBool::new(false));
        let service = Streams { sender: self.sender.clone(), answered: Arc::clone(&answered) };
        let mut client =
            AuthorizationClient::with_origin(service, self.origin.clone()).max_decoding_message_size(max_answer);
        let mut request = tonic::Request::new(question);
        request.set_timeout(timeout);
        match client.check(request).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if !answered.load(Ordering::Acquire) => Err(CheckError::Unanswered(Box::new(status))),
            Err(status) if status.source().is_some() || status.code() == tonic::Code::Ok => {
                Err(CheckError::Broken(Box::new(status)))
            }
            Err(status) => Err(CheckError::Status(i32::from(status.code()))),
        }
    }
}

/// Opens one stream a question, and notes whether its answer began.
struct Streams {
    sender: http2::SendRequest<Body>,
    answered: Arc<AtomicBool>,
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Incoming>, hyper::Error>> + Send>>;

impl Service<http::Request<Body>> for Streams {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        let answering = self.sender.send_request(request);
        let answered = Arc::clone(&self.answered);
        Box::pin(async move {
            let response = answering.await?;
            answered.store(true, Ordering::Release);
            Ok(response)
        })
    }
}
