//! Exact texts: a hash table that is built once and never written again.
//!
//! Texts lie side by side, entries hold a piece of the hash, so that a look-up reads one entry and one text. Keys come
//! from policies, never from requests: nobody who may not write policy can choose what collides.

/// A table from texts to numbers; equal texts may stand in it several times.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Box<[Entry]>,
    texts: Box<[u8]>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u32,
    id: u32,
    start: u32,
    length: u32,
}

const FREE: Entry = Entry { tag: 0, id: u32::MAX, start: 0, length: u32::MAX };

impl Table {
    /// A table of `(hash, text, number)`.
    pub(super) fn new<'a>(items: impl Iterator<Item = (u64, &'a [u8], u32)> + Clone) -> Self {
        let count = items.clone().count();
        if count == 0 {
            return Self::default();
        }
        let mut entries = vec![FREE; (count * 2).next_power_of_two()];
        let mask = entries.len() - 1;
        let mut texts = Vec::with_capacity(items.clone().map(|(_, text, _)| text.len()).sum());
        for (hash, text, id) in items {
            let (Ok(start), Ok(length)) = (u32::try_from(texts.len()), u32::try_from(text.len())) else {
                continue;
            };
            texts.extend_from_slice(text);
            let (mut at, tag) = split(hash, mask);
            while entries.get(at).is_some_and(|entry| entry.length != u32::MAX) {
                at = (at + 1) & mask;
            }
            if let Some(entry) = entries.get_mut(at) {
                *entry = Entry { tag, id, start, length };
            }
        }
        Self { entries: entries.into(), texts: texts.into() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Calls `found` with the numbers of the texts that `equal` accepts among those with this hash.
    pub(super) fn find(&self, hash: u64, equal: impl Fn(&[u8]) -> bool, found: &mut dyn FnMut(u32)) {
        let mask = self.entries.len().wrapping_sub(1);
        let (mut at, tag) = split(hash, mask);
        while let Some(entry) = self.entries.get(at).filter(|entry| entry.length != u32::MAX) {
            if entry.tag == tag && self.text(entry).is_some_and(&equal) {
                found(entry.id);
            }
            at = (at + 1) & mask;
        }
    }

    /// The same for one text, hashed without a seed.
    pub(super) fn get(&self, text: &[u8], found: &mut dyn FnMut(u32)) {
        if !self.is_empty() {
            self.find(hash(0, text), |known| known == text, found);
        }
    }

    fn text(&self, entry: &Entry) -> Option<&[u8]> {
        let start = usize::try_from(entry.start).ok()?;
        self.texts.get(start..start.checked_add(usize::try_from(entry.length).ok()?)?)
    }
}

/// Place in the table, and the piece of the hash that the entry keeps.
fn split(hash: u64, mask: usize) -> (usize, u32) {
    let place = usize::try_from(hash & 0xffff_ffff).unwrap_or_default();
    (place & mask, u32::try_from(hash >> 32).unwrap_or_default())
}

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd6e8_feb8_6659_fd93;

/// Eight bytes at a time, by a multiplication whose halves are mixed.
pub(super) fn hash(seed: u64, text: &[u8]) -> u64 {
    let mut state = seed ^ K0;
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        state = mix(state ^ u64::from_le_bytes(*word), K1);
    }
    // The last word of a longer text overlaps the one before it.
    let last = text.last_chunk::<8>().copied().unwrap_or_else(|| {
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        last
    });
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    mix(state ^ u64::from_le_bytes(last), K0 ^ length)
}

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    let (low, high) = (product & u128::from(u64::MAX), product >> 64);
    u64::try_from(low ^ high).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(table: &Table, text: &str) -> Vec<u32> {
        let mut all = Vec::new();
        table.get(text.as_bytes(), &mut |id| all.push(id));
        all.sort_unstable();
        all
    }

    #[test]
    fn every_text_is_found_and_no_other() {
        let texts: Vec<String> = (0..5000).map(|number| format!("/v1/service-{number}/items")).collect();
        let mut items: Vec<_> =
            (0..).zip(&texts).map(|(id, text)| (hash(0, text.as_bytes()), text.as_bytes(), id)).collect();
        items.push((hash(0, texts[7].as_bytes()), texts[7].as_bytes(), 9999));
        let table = Table::new(items.iter().copied());
        for (id, text) in (0..).zip(&texts) {
            let expected = if id == 7 { vec![7, 9999] } else { vec![id] };
            assert_eq!(found(&table, text), expected);
            assert!(found(&table, &text[1..]).is_empty());
        }
        assert!(found(&Table::default(), "x").is_empty());
        let one = Table::new([(hash(0, b""), &b""[..], 3)].into_iter());
        assert_eq!((found(&one, ""), found(&one, "x")), (vec![3], vec![]));
    }

    #[test]
    fn a_collision_of_hashes_is_told_apart_by_the_text() {
        let table = Table::new([(5, &b"a"[..], 1), (5, b"b", 2)].into_iter());
        let mut all = Vec::new();
        table.find(5, |text| text == b"b", &mut |id| all.push(id));
        assert_eq!(all, [2]);
    }

    #[test]
    fn lengths_and_seeds_count() {
        assert_ne!(hash(0, b""), hash(0, b"\0"));
        assert_ne!(hash(0, b"12345678"), hash(0, b"12345678\0"));
        assert_ne!(hash(1, b"a"), hash(2, b"a"));
    }
}
