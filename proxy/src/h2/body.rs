//! Response bodies of HTTP/2 streams: our own short ones, and relayed ones that end when policy says so.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::Shared;
use super::request::Owned;
use crate::grant::{self, Terms};
use crate::live::{CUT, Open, REJUDGE};

/// Why a relayed body breaks off: the stream is reset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("upstream body failed")]
    Upstream(#[from] hyper::Error),
    #[error("denied by the newest policy")]
    Denied,
    #[error("the connection has to end")]
    Cut,
}

/// A response body.
pub(crate) enum Body {
    Empty,
    /// Our own words.
    Whole(Bytes),
    /// Complete already, or not ours to watch.
    Plain(Incoming),
    Watched(Box<Watched>),
}

/// A body that goes on while policy may change.
pub(crate) struct Watched {
    shared: Arc<Shared>,
    owned: Owned,
    terms: Option<Arc<Terms>>,
    inner: Incoming,
    open: Open,
}

impl Watched {
    /// Watches `inner` where there is policy to watch for. `open` was registered before the request was decided.
    pub(super) fn body(
        shared: Arc<Shared>,
        owned: Owned,
        terms: Option<Arc<Terms>>,
        inner: Incoming,
        open: Option<Open>,
    ) -> Body {
        match open {
            Some(open) => Body::Watched(Box::new(Watched { shared, owned, terms, inner, open })),
            None => Body::Plain(inner),
        }
    }

    fn poll_cut(&mut self, cx: &Context<'_>) -> Option<BodyError> {
        let flags = self.open.signal.poll(cx);
        if flags & CUT != 0 {
            return Some(BodyError::Cut);
        }
        if flags & REJUDGE == 0 || !self.open.signal.take_rejudge() {
            return None;
        }
        let (session, terms) = (&self.shared.session, self.terms.as_deref());
        let denied = grant::denied_now(session, &self.owned.ask(), terms)?;
        grant::record_cut(session, &self.owned.ask(), terms, Some(denied), 200);
        Some(BodyError::Denied)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Body::Empty => Poll::Ready(None),
            body @ Body::Whole(_) => {
                let Body::Whole(whole) = std::mem::replace(body, Body::Empty) else { return Poll::Ready(None) };
                Poll::Ready(Some(Ok(Frame::data(whole))))
            }
            Body::Plain(inner) => Pin::new(inner).poll_frame(cx).map_err(BodyError::Upstream),
            Body::Watched(watched) => match watched.poll_cut(cx) {
                Some(cut) => Poll::Ready(Some(Err(cut))),
                None => Pin::new(&mut watched.inner).poll_frame(cx).map_err(BodyError::Upstream),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Whole(_) => false,
            Body::Plain(inner) => inner.is_end_stream(),
            Body::Watched(watched) => watched.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Whole(whole) => SizeHint::with_exact(whole.len() as u64),
            Body::Plain(inner) => inner.size_hint(),
            Body::Watched(watched) => watched.inner.size_hint(),
        }
    }
}
