//! What goes wrong at an authority on a bad day, with the real processes: wrong clocks, a full disk and a slow one, evidence that
//! proves nothing, requests made to hurt, and a caller that never stops. Whoever asks is told why not, and everybody else is served.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "e2e_hostile/caller.rs"]
mod caller;
#[path = "e2e_hostile/clock.rs"]
mod clock;
#[path = "e2e_hostile/disk.rs"]
mod disk;
#[path = "e2e_hostile/flood.rs"]
mod flood;
#[path = "e2e_hostile/record.rs"]
mod record;
#[path = "e2e_hostile/requests.rs"]
mod requests;
#[path = "e2e_hostile/slow_disk.rs"]
mod slow_disk;
#[path = "e2e_hostile/tokens.rs"]
mod tokens;
