//! CUSTOM providers and the gate over real sockets: what a provider is asked, what becomes of its answer, and what
//! becomes of a request when it fails.
#![cfg(test)]

mod facts;
mod facts_http;
mod faults;
mod gate;
mod gate_tcp;
mod limits;
mod question;
mod reuse;
mod support;
mod world;
