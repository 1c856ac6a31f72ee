#![doc = include_str!("../README.md")]

mod admin;
mod clock;
mod forwarder;
mod ingest;
mod limits;
mod metrics;
mod query;
mod recorder;
pub mod render;
mod spool;
mod store;
pub mod window;

pub use admin::{AdminAudit, Answers};
pub use clock::NanoClock;
pub use forwarder::{Connect, ConnectError, Forwarder, ForwarderConfig};
pub use ingest::{Authorizer, IngestService};
pub use limits::Nonsense;
pub use palisade_wire::audit::Event;
pub use query::{Answer, Completeness, MAX_ROWS, PartyFilter, Query, QueryError, Reason};
pub use recorder::{Recorder, RecorderConfig, Recording, SpoolError, Spooler};
pub use spool::{OpenError, SpoolReader};
pub use store::{Account, Inserted, Store, StoreError};
