//! The body of a request, as much of it as a port has room for.
//!
//! Every byte that has come and is not answered yet counts against one budget of the port, whoever sent it; what would not fit
//! is refused. A body that does not end in time is none.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

/// Why a body is not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// Too much is held already.
    #[error("too many bytes of requests are held at once")]
    Full,
    /// It takes too long.
    #[error("the body did not end in time")]
    Slow,
    /// The connection or the framing failed.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
}

/// Bytes that one request holds, given back when it is answered.
pub(crate) struct Held {
    budget: Arc<Semaphore>,
    bytes: AtomicUsize,
}

impl Held {
    pub(crate) fn none(budget: &Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { budget: Arc::clone(budget), bytes: AtomicUsize::new(0) })
    }

    fn take(&self, bytes: usize) -> Result<(), UploadError> {
        let permits = u32::try_from(bytes).map_err(|_| UploadError::Full)?;
        self.budget.try_acquire_many(permits).map_err(|_| UploadError::Full)?.forget();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.add_permits(*self.bytes.get_mut());
    }
}

/// A body that counts and is timed.
pub(crate) struct Upload {
    incoming: Incoming,
    held: Arc<Held>,
    deadline: Pin<Box<Sleep>>,
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, held: Arc<Held>, timeout: Duration) -> Self {
        Self { incoming, held, deadline: Box::pin(tokio::time::sleep(timeout)) }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) else {
            ready!(self.deadline.as_mut().poll(context));
            return Poll::Ready(Some(Err(UploadError::Slow)));
        };
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(UploadError::Broken)?;
            self.held.take(frame.data_ref().map_or(0, Bytes::len))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
