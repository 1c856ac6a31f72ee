//! Keys and tokens stand in the memory of every verb, so a crash must leave no image of it behind.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// In bytes. Too few for a file, and unlike 0 it also keeps the kernel from piping the image to the program of its
/// `core_pattern` (fs/coredump.c: there, and for this number only, the limit counts for pipes).
const LARGEST: u64 = 1;

/// Before the first secret is read. Children inherit it and may raise it again.
pub(crate) fn forgo_core_dumps() {
    let maximum = getrlimit(Resource::Core).maximum;
    let current = Some(maximum.map_or(LARGEST, |most| most.min(LARGEST)));
    // Nobody is refused less than he has.
    let _ = setrlimit(Resource::Core, Rlimit { current, maximum });
}
