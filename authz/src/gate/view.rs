//! A request with edits laid over it, as the filters behind the edit see it.

use crate::edits::{EditedHeaders, Edits};
use crate::normalize;
use crate::request::{HttpRequest, Request};

/// A request and its edits. The edited [`Request`] borrows from this.
pub(super) struct Edited<'a> {
    request: Request<'a>,
    edits: &'a Edits,
    headers: Option<EditedHeaders<'a>>,
}

impl<'a> Edited<'a> {
    pub(super) fn new(request: &Request<'a>, edits: &'a Edits) -> Self {
        let headers = request.http.map(|http| edits.over(http.headers));
        Self { request: *request, edits, headers }
    }

    /// Calls `f` with the edited request. The client's address stays: Envoy settles it before any filter runs. A new
    /// path is taken as it is: Envoy normalises only what the caller sent.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Request<'_>) -> T) -> T {
        let http = match (&self.request.http, &self.headers) {
            (Some(http), Some(headers)) => Some(HttpRequest {
                method: self.edits.method.as_deref().or(http.method),
                host: self.edits.host.as_deref().or(http.host),
                path: self.edits.target.as_deref().map_or(http.path, |target| Some(normalize::without_query(target))),
                raw_target: self.edits.target.as_deref().or(http.raw_target),
                headers,
                ..*http
            }),
            _ => None,
        };
        f(&Request { http, ..self.request })
    }
}
