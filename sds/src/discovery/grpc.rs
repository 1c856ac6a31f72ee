//! gRPC for streams that are many and mostly silent.
//!
//! The library's own streams take 8 KiB for each direction at once, and keep the memory of their largest message for as long as
//! they live: that is Envoy's first one, in which it describes itself with some 100 KiB. A node has thousands of such streams,
//! so here one holds nothing between its messages.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Frame;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Body as _, BoxFuture, Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Request, Status};

use super::{Answers, Discovery};

/// Largest message a client may send; Envoy's first one takes a tenth of it.
const MAX_MESSAGE: usize = 1024 * 1024;
/// A flag and the length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Routes the calls of `envoy.service.secret.v3.SecretDiscoveryService`.
#[derive(Clone)]
pub(crate) struct Server(Arc<Discovery>);

impl Server {
    pub(crate) fn new(discovery: Discovery) -> Self {
        Self(Arc::new(discovery))
    }
}

impl NamedService for Server {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let discovery = Arc::clone(&self.0);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let caller = Request::from_parts(MetadataMap::new(), parts.extensions, ());
            let answer = match parts.uri.path().rsplit('/').next() {
                Some("StreamSecrets") => discovery.stream(&caller, Messages::new(body)).await.map(respond),
                Some("DeltaSecrets") => discovery.delta(&caller, Messages::new(body)).await.map(respond),
                Some("FetchSecrets") => discovery.fetch(&caller, Messages::new(body)).await.map(respond),
                _ => Err(Status::unimplemented("no such method")),
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

fn respond<T: Message + 'static>(answers: Answers<T>) -> http::Response<Body> {
    let mut response = http::Response::new(Body::new(Outbound(Some(answers))));
    let kind = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// What the client gets: each message in memory of its own, which is free once it is sent; a status at the end, then nothing.
struct Outbound<T>(Option<Answers<T>>);

impl<T: Message> http_body::Body for Outbound<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(answers) = &mut self.0 else { return Poll::Ready(None) };
        let answer = ready!(answers.as_mut().poll_next(cx));
        let end = match answer.map(|answer| answer.and_then(|message| framed(&message))) {
            Some(Ok(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.0 = None;
        let mut trailers = http::HeaderMap::new();
        Poll::Ready(Some(end.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX.saturating_add(length));
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).map_err(|_| Status::internal("the answer is too long"))?);
    message.encode(&mut bytes).map_err(|error| Status::internal(error.to_string()))?;
    Ok(bytes.freeze())
}

/// What a client sends.
pub(crate) struct Messages<T> {
    body: Body,
    /// The beginning of the next message, if not all of it has come.
    pending: BytesMut,
    kind: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Messages<T> {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, pending: BytesMut::new(), kind: PhantomData }
    }

    /// The next message; `None` when the client has said everything. Can be dropped and called again.
    ///
    /// # Errors
    /// The status that ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
                // A reset is how most clients leave; there is nobody to tell.
                Some(Err(_)) => return Ok(None),
                None if self.pending.is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ends within a message")),
            }
        }
    }

    /// The first message of what has come, if it is whole.
    fn take(&mut self) -> Result<Option<T>, Status> {
        let Some((&[compressed, a, b, c, d], rest)) = self.pending.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err(Status::unimplemented("messages must not be compressed"));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(Status::out_of_range(format!("a message has {length} bytes, at most {MAX_MESSAGE} are taken")));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let message = T::decode(bytes).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.pending.advance(PREFIX + length);
        if self.pending.is_empty() {
            // Its memory goes, too.
            self.pending = BytesMut::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests;
