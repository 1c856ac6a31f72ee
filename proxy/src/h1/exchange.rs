//! One request and its response, both directions at once, in the task that owns the two sockets.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Buf;

use super::body::{Framing, FramingError};
use super::encode;
use super::relay::{Relay, RelayError};
use super::response::{ResponseError, ResponseHead};
use crate::guard::{Cut, Guard};
use crate::leg::{Leg, WRITE_HIGH};

/// Interim responses (1xx) to one request, before the server is taken for broken.
const MAX_INTERIM: usize = 100;

/// Why an exchange ended before its response was complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The client went away; nobody is there to be answered.
    #[error("client connection failed")]
    Client(#[source] io::Error),
    /// The client's body is framed wrongly.
    #[error("request body is malformed")]
    RequestBody(#[source] FramingError),
    /// The upstream connection ended before any byte of a response.
    #[error("upstream closed before it answered")]
    NoAnswer(#[source] Option<io::Error>),
    /// The upstream broke off in the middle, or answered nonsense.
    #[error("upstream response failed")]
    Upstream(#[source] io::Error),
    #[error(transparent)]
    Response(#[from] ResponseError),
    #[error("cut")]
    Cut(Cut),
}

/// A request being exchanged.
#[derive(Debug)]
pub(crate) struct Exchange {
    upload: Relay,
    /// The upload is complete, or cannot go on.
    upload_over: bool,
    upload_broken: bool,
    /// Something of a response was seen.
    answered: bool,
    to_head: bool,
    upgrading: bool,
    /// Interim responses so far.
    interim: usize,
}

impl Exchange {
    /// For a request whose encoded head is queued on the upstream leg.
    pub(crate) fn new(framing: Framing, to_head: bool, upgrading: bool) -> Exchange {
        Exchange {
            upload: Relay::new(framing, framing),
            upload_over: false,
            upload_broken: false,
            answered: false,
            to_head,
            upgrading,
            interim: 0,
        }
    }

    /// The same with the request's trailers sent on or not.
    pub(crate) fn trailing(self, trailers: bool) -> Exchange {
        Exchange { upload: self.upload.trailing(trailers), ..self }
    }

    /// The request reached the upstream completely.
    pub(crate) fn upload_complete(&self) -> bool {
        self.upload_over && !self.upload_broken
    }

    /// Nothing of the request's body was taken from the client: the request can still be sent, or refused, as a whole.
    pub(crate) fn body_untouched(&self) -> bool {
        self.upload.is_untouched()
    }

    /// Sends the request and reads until a final response head (or 101) stands in `head`.
    pub(crate) async fn head(
        &mut self,
        client: &mut Leg,
        up: &mut Leg,
        head: &mut ResponseHead,
        guard: &mut Guard<'_>,
    ) -> Result<(), ExchangeError> {
        poll_fn(|cx| {
            if let Some(cut) = guard.poll(cx) {
                return Poll::Ready(Err(ExchangeError::Cut(cut)));
            }
            self.poll_upload(cx, client, up)?;
            self.poll_client(cx, client)?;
            self.poll_head(cx, client, up, head)
        })
        .await
    }

    /// Relays the response body after its head was queued for the client.
    pub(crate) async fn body(
        &mut self,
        client: &mut Leg,
        up: &mut Leg,
        download: &mut Relay,
        guard: &mut Guard<'_>,
    ) -> Result<(), ExchangeError> {
        poll_fn(|cx| {
            if let Some(cut) = guard.poll(cx) {
                return Poll::Ready(Err(ExchangeError::Cut(cut)));
            }
            // After a final response a failing upload only costs the connection.
            if self.poll_upload(cx, client, up).is_err() {
                (self.upload_over, self.upload_broken) = (true, true);
            }
            download.poll(cx, up, client).map_err(|error| match error {
                RelayError::Source(e) => ExchangeError::Upstream(e),
                RelayError::Sink(e) => ExchangeError::Client(e),
                RelayError::Framing(e) => ExchangeError::Upstream(io::Error::new(io::ErrorKind::InvalidData, e)),
            })
        })
        .await
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>, client: &mut Leg, up: &mut Leg) -> Result<(), ExchangeError> {
        if self.upload_over {
            return Ok(());
        }
        match self.upload.poll(cx, client, up) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => {
                self.upload_over = true;
                Ok(())
            }
            Poll::Ready(Err(RelayError::Source(e))) => Err(ExchangeError::Client(e)),
            Poll::Ready(Err(RelayError::Framing(e))) => Err(ExchangeError::RequestBody(e)),
            // The server may have answered early and closed: its response is still worth reading.
            Poll::Ready(Err(RelayError::Sink(_))) => {
                (self.upload_over, self.upload_broken) = (true, true);
                Ok(())
            }
        }
    }

    /// Notices a client that went away while the upstream works. A pipelined request stays in the buffer unread.
    fn poll_client(&mut self, cx: &mut Context<'_>, client: &mut Leg) -> Result<(), ExchangeError> {
        let listening = self.upload_over && !client.eof && client.rbuf.is_empty();
        match listening.then(|| client.poll_fill(cx)) {
            Some(Poll::Ready(Err(e))) => Err(ExchangeError::Client(e)),
            // A half-closed client may still wait for its answer.
            _ => Ok(()),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Leg,
        up: &mut Leg,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), ExchangeError>> {
        loop {
            // Who does not read is not written to without end.
            if client.wbuf.len() >= WRITE_HIGH {
                ready!(client.poll_flush(cx)).map_err(ExchangeError::Client)?;
            }
            if !up.rbuf.is_empty() {
                self.answered = true;
                if let Some(len) = head.read(&up.rbuf, self.to_head)? {
                    up.rbuf.advance(len);
                    if self.is_final(head)? {
                        return Poll::Ready(Ok(()));
                    }
                    encode::interim(head, &mut client.wbuf);
                    continue;
                }
            }
            if !client.wbuf.is_empty()
                && let Poll::Ready(Err(e)) = client.poll_flush(cx)
            {
                return Poll::Ready(Err(ExchangeError::Client(e)));
            }
            match up.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(ended) => return Poll::Ready(Err(self.upstream_ended(ended.err()))),
            }
        }
    }

    /// Whether the response that began is the one the request waits for, and not an interim one.
    fn is_final(&mut self, head: &ResponseHead) -> Result<bool, ResponseError> {
        match head.status {
            101 if !self.upgrading => Err(ResponseError("101 without a request to upgrade")),
            100 | 102..200 if self.interim >= MAX_INTERIM => Err(ResponseError("too many interim responses")),
            100 | 102..200 => {
                self.interim += 1;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn upstream_ended(&self, error: Option<io::Error>) -> ExchangeError {
        if self.answered {
            ExchangeError::Upstream(error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        } else {
            ExchangeError::NoAnswer(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::BytesMut;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::stream::Stream;

    async fn socket() -> (Leg, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Leg::new(Stream::Plain(near), BytesMut::new()), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_not_queued_for_without_end() {
        let ((mut client, _deaf), (mut up, _server)) = (socket().await, socket().await);
        socket2::SockRef::from(client.io.tcp()).set_send_buffer_size(4096).unwrap();
        let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "a".repeat(100_000));
        up.rbuf.extend_from_slice(hint.repeat(90).as_bytes());
        let mut exchange = Exchange::new(Framing::Length(0), false, false);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(exchange.poll_head(&mut cx, &mut client, &mut up, &mut ResponseHead::default()).is_pending());
        assert!(client.wbuf.len() < WRITE_HIGH + hint.len() + 64, "{} bytes", client.wbuf.len());
        assert!(!up.rbuf.is_empty());
    }
}
