//! Request bodies on their way: what was read before the decision goes first, and trailers pass the same gate as over
//! HTTP/1.1.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::h1::encode::may_trail;

/// A caller's body, without trailer fields that would speak for a caller.
#[derive(Debug)]
pub(crate) struct Upload {
    first: VecDeque<Bytes>,
    /// Trailers that were read already: nothing of `rest` is left then.
    trailers: Option<HeaderMap>,
    rest: Incoming,
    /// Trailers are sent on.
    trailing: bool,
}

impl Upload {
    /// A body of which `first`, and maybe its end with `trailers`, were taken from `rest`.
    pub(super) fn after(first: VecDeque<Bytes>, mut trailers: Option<HeaderMap>, rest: Incoming) -> Upload {
        if let Some(trailers) = &mut trailers {
            sanitise(trailers);
        }
        Upload { first, trailers, rest, trailing: true }
    }

    /// The same with trailers sent on or not.
    pub(super) fn trailing(self, trailing: bool) -> Upload {
        Upload { trailers: self.trailers.filter(|_| trailing), trailing, ..self }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if let Some(data) = this.first.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let Some(mut frame) = ready!(Pin::new(&mut this.rest).poll_frame(cx)?) else { return Poll::Ready(None) };
        match frame.trailers_mut() {
            // They are the end.
            Some(_) if !this.trailing => return Poll::Ready(None),
            Some(trailers) => sanitise(trailers),
            None => {}
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.trailers.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 = self.first.iter().map(|data| data.len() as u64).sum();
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

fn sanitise(trailers: &mut HeaderMap) {
    let barred: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name.as_str())).cloned().collect();
    for name in barred {
        trailers.remove(name);
    }
}
