//! HTTP/1.1 as this proxy needs it: read a head strictly, relay bodies with exact framing, never repair.
//!
//! hyper is lenient where a proxy must not be (it drops `Content-Length` beside `Transfer-Encoding`, and takes a bare
//! LF for the end of a line) and costs two tasks an exchange. Here one task reads, decides, forwards and answers.
//! HTTP/2 is hyper's ([`crate::h2`]).

pub(crate) mod body;
mod early;
pub(crate) mod encode;
pub(crate) mod exchange;
mod forward;
pub(crate) mod relay;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod serve;
mod view;
