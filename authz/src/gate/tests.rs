//! What needs no socket: the order of phases, who sees which edits, and judging again.

use super::*;

/// Requests are judged in tasks that move between threads.
#[test]
fn judging_can_move_between_threads() {
    fn sent<T: Send>(_: &T) {}
    fn proof(gate: &Gate, ask: &Ask<'_>, body: &mut dyn BodySource) {
        sent(&gate.judge(ask, body, UNIX_EPOCH));
        sent(&gate.judge_connection(&ask.request, ask.check));
    }
    let _ = proof;
}
