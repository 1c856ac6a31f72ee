//! The caller of an HTTP/2 request that waits to be decided. Its going away ends the whole task: hyper drops the future
//! of a stream that was reset.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;

use super::upload::Upload;
use crate::live::{CUT, Signal};
use crate::waiting::{Caller, Left};

/// See the module. The lock is never waited for: one task polls both sides of it.
pub(super) struct Early<'a> {
    signal: &'a Signal,
    state: Mutex<State>,
}

struct State {
    body: Incoming,
    /// What was read, as it came.
    read: VecDeque<Bytes>,
    len: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    was_read: bool,
    left: Option<Left>,
}

impl<'a> Early<'a> {
    pub(super) fn new(signal: &'a Signal, body: Incoming) -> Early<'a> {
        let (read, trailers, left) = Default::default();
        Early { signal, state: Mutex::new(State { body, read, len: 0, trailers, ended: false, was_read: false, left }) }
    }

    /// The whole body, what was read included.
    pub(super) fn into_upload(self) -> Upload {
        let State { body, read, trailers, .. } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Upload::after(read, trailers, body)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller for Early<'_> {
    fn poll_body(&self, cx: &mut Context<'_>, max: usize) -> Poll<Result<(Bytes, bool), Left>> {
        let mut state = self.lock();
        let polled = state.poll_body(cx, max);
        if let Poll::Ready(Err(left)) = polled {
            state.left = Some(left);
        }
        polled
    }

    fn poll_left(&self, cx: &mut Context<'_>) -> Option<Left> {
        if self.signal.poll(cx) & CUT != 0 {
            return Some(Left::Gone);
        }
        self.lock().left
    }

    fn came(&self) -> usize {
        self.lock().len
    }

    fn was_read(&self) -> bool {
        self.lock().was_read
    }
}

impl State {
    fn poll_body(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<(Bytes, bool), Left>> {
        self.was_read = true;
        self.ended |= self.body.is_end_stream();
        while !self.ended && self.len <= max {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(_)) => return Poll::Ready(Err(Left::Gone)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.len += data.len();
                        self.read.push_back(data);
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
        let mut shown = BytesMut::with_capacity(self.len.min(max));
        for data in &self.read {
            shown.extend_from_slice(data.get(..max - shown.len()).unwrap_or(data));
        }
        Poll::Ready(Ok((shown.freeze(), self.len <= max)))
    }
}
