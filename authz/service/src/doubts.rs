//! What joined header fields may have been before an enforcer joined them.
//!
//! Envoy without `encode_raw_headers` sends one value for each name: repeated fields joined by a comma, and each byte that is
//! no UTF-8 as `!`. So every comma may or may not part two fields, and every `!` may be another byte. Envoy forwards the
//! fields as they came, and whoever reads them there tells the ways apart: all ways count, mixtures included.

use std::borrow::Cow;

use palisade_authz::{Headers, is_joined_header};

use crate::question::HeaderList;

/// Points of doubt up to which every way is tried: each doubles their number.
const MOST_POINTS: usize = 6;

/// The headers of a request, and where in them doubts are.
pub(crate) struct Doubts<'a> {
    list: &'a HeaderList,
    /// Indices of fields with doubts.
    fields: Vec<usize>,
    points: usize,
}

/// Headers in one of the ways in which they may have come.
pub(crate) struct Way<'a> {
    list: Cow<'a, HeaderList>,
}

impl<'a> Doubts<'a> {
    /// Doubts in the headers whose lower-case names stand in `read`.
    pub(crate) fn of(list: &'a HeaderList, read: &[String]) -> Self {
        let mut doubts = Self { list, fields: Vec::new(), points: 0 };
        for (index, (name, value)) in list.iter().enumerate().filter(|(_, (name, _))| read.contains(name)) {
            let points = points(name, value).count();
            if points > 0 {
                doubts.fields.push(index);
                doubts.points += points;
            }
        }
        doubts
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.points > 0
    }

    /// The number of ways; `None` where they are too many to try. The first one is the list as it came.
    pub(crate) fn ways(&self) -> Option<u32> {
        (self.points <= MOST_POINTS).then(|| 1 << self.points)
    }

    /// One of the ways: each bit of the number settles one doubt.
    pub(crate) fn way(&self, mut number: u32) -> Way<'a> {
        if number == 0 {
            return Way { list: Cow::Borrowed(self.list) };
        }
        let mut list = HeaderList::with_capacity(self.list.len() + self.points);
        for (index, field) in self.list.iter().enumerate() {
            if self.fields.contains(&index) {
                apart(field, &mut number, &mut list);
            } else {
                list.push(field.clone());
            }
        }
        Way { list: Cow::Owned(list) }
    }
}

impl Headers for Way<'_> {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        self.list.for_each(name, f);
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &[u8])) {
        self.list.visit(f);
    }
}

/// Where a value is in doubt. Some fields Envoy holds joined from the start: their commas part nothing.
fn points<'v>(name: &str, value: &'v [u8]) -> impl Iterator<Item = usize> + use<'v> {
    let joined = is_joined_header(name);
    let doubtful = move |byte: u8| byte == b'!' || (byte == b',' && !joined);
    value.iter().enumerate().filter(move |(_, byte)| doubtful(**byte)).map(|(index, _)| index)
}

/// Settles the doubts of one field by the lowest bits of `number`, which are then used up.
fn apart(field: &(String, Vec<u8>), number: &mut u32, list: &mut HeaderList) {
    let (name, value) = field;
    let mut part = Vec::with_capacity(value.len());
    let mut rest = points(name, value).peekable();
    for (index, byte) in value.iter().enumerate() {
        let settled = rest.next_if_eq(&index).is_some() && {
            let bit = *number & 1 == 1;
            *number >>= 1;
            bit
        };
        match byte {
            b',' if settled => list.push((name.clone(), trimmed(&std::mem::take(&mut part)).to_vec())),
            // No UTF-8 holds this byte, and no policy can name any that is none.
            b'!' if settled => part.push(0xff),
            byte => part.push(*byte),
        }
    }
    list.push((name.clone(), trimmed(&part).to_vec()));
}

/// Without spaces and tabs around it.
pub(crate) fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&str, &str)]) -> HeaderList {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    fn read(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_comma_may_part_two_fields_and_mixtures_count() {
        let came = list(&[("accept", "a,b"), ("x-a", "1, 2,3"), ("x-b", "4,5")]);
        let doubts = Doubts::of(&came, &read(&["accept", "x-a"]));
        let ways: Vec<HeaderList> = (0..doubts.ways().unwrap()).map(|way| doubts.way(way).list.into_owned()).collect();
        let of = |values: &[&str]| {
            let values = values.iter().map(|value| ("x-a", *value));
            list(&[("accept", "a,b")].into_iter().chain(values).chain([("x-b", "4,5")]).collect::<Vec<_>>())
        };
        assert_eq!(ways, [of(&["1, 2,3"]), of(&["1", "2,3"]), of(&["1, 2", "3"]), of(&["1", "2", "3"])]);
        assert!(!Doubts::of(&came, &read(&["accept"])).any());
    }

    #[test]
    fn an_exclamation_mark_may_be_another_byte() {
        let came = list(&[("accept", "a!")]);
        let doubts = Doubts::of(&came, &read(&["accept"]));
        assert_eq!(doubts.ways(), Some(2));
        assert_eq!(doubts.way(1).list.into_owned(), [("accept".to_owned(), b"a\xff".to_vec())]);
    }

    #[test]
    fn too_many_doubts_are_not_tried() {
        let came = list(&[("x-a", "1,2,3,4"), ("x-b", ",,,,")]);
        assert_eq!(Doubts::of(&came, &read(&["x-a"])).ways(), Some(8));
        assert_eq!(Doubts::of(&came, &read(&["x-a", "x-b"])).ways(), None);
    }
}
