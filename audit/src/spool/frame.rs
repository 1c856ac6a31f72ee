//! One event on disk: length, checksum, protobuf bytes.
//!
//! The checksum covers the length too, so that a block of zeroes, which some file systems leave behind after a power cut, is
//! not read as an empty record.

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use palisade_wire::audit::Event;
use prost::Message;

/// First bytes of every segment: format and version.
pub(super) const MAGIC: &[u8; 8] = b"PALSPL\x00\x01";
/// Above every event that [`crate::limits`] lets through.
pub(super) const MAX_PAYLOAD: usize = 256 * 1024;
/// Length and checksum.
const HEAD: usize = 8;

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// What stands next in a run of frames.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// A whole event and the bytes it takes.
    Event(Box<Event>, usize),
    /// Nothing is left.
    End,
    /// Cut off or damaged.
    Torn,
}

/// Appends `event` to `out`.
pub(super) fn push(out: &mut Vec<u8>, event: &Event) {
    let payload = event.encode_to_vec();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    out.reserve(HEAD + payload.len());
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(&length, &payload).to_le_bytes());
    out.extend_from_slice(&payload);
}

/// Reads the first frame of `bytes`.
pub(super) fn next(bytes: &[u8]) -> Frame {
    if bytes.is_empty() {
        return Frame::End;
    }
    split(bytes).map_or(Frame::Torn, |(event, size)| Frame::Event(Box::new(event), size))
}

fn split(bytes: &[u8]) -> Option<(Event, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if size == 0 || size > MAX_PAYLOAD {
        return None;
    }
    let (payload, _) = rest.split_at_checked(size)?;
    if checksum(length, payload) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((Event::decode(payload).ok()?, HEAD + size))
}

fn checksum(length: &[u8; 4], payload: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(length);
    digest.update(payload);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(sequence: u64) -> Event {
        Event { sequence, epoch: 7, policy: "ns[a]-policy[b]-rule[0]".into(), ..Event::default() }
    }

    #[test]
    fn a_frame_reads_back() {
        let mut bytes = Vec::new();
        push(&mut bytes, &event(1));
        assert_eq!(next(&bytes), Frame::Event(Box::new(event(1)), bytes.len()));
        assert_eq!(next(&[]), Frame::End);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let mut bytes = Vec::new();
        push(&mut bytes, &event(1));
        for cut in 1..bytes.len() {
            assert_eq!(next(&bytes[..cut]), Frame::Torn, "cut at {cut}");
        }
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1 << bit;
                assert_eq!(next(&damaged), Frame::Torn, "byte {index} bit {bit}");
            }
        }
    }

    #[test]
    fn zeroes_are_not_an_event() {
        assert_eq!(next(&[0; 64]), Frame::Torn);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_read_as_more_than_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            if let Frame::Event(_, size) = next(&bytes) {
                prop_assert!(size <= bytes.len());
            }
        }
    }
}
