//! What Envoy can be told to forward.
//!
//! An ext_authz answer can set a field, and it can continue one that is there by a comma; two fields of one name it cannot
//! make, and which of its two ways to say so counts differs between versions. So every field is told once, whole.

use palisade_authz::{Edits, is_joined_header};

/// Edits that set and remove alone.
pub(crate) struct Forwarded {
    pub(crate) edits: Edits,
    /// Names whose fields were decided on one by one and become one field.
    pub(crate) several: Vec<String>,
}

impl Forwarded {
    /// The edits of a request with these headers, as Envoy carries them out.
    pub(crate) fn of(mut edits: Edits, headers: &[(String, Vec<u8>)]) -> Self {
        let mut several = Vec::new();
        let mut appended = std::mem::take(&mut edits.append);
        while let Some((name, _)) = appended.first().cloned() {
            let set = edits.set.iter().any(|(other, _)| *other == name);
            let kept = if set || edits.remove.contains(&name) { &[][..] } else { headers };
            let of = |list: &[(String, Vec<u8>)]| -> Vec<Vec<u8>> {
                list.iter().filter(|(other, _)| *other == name).map(|(_, value)| value.clone()).collect()
            };
            let values = [of(kept), of(&edits.set), of(&appended)].concat();
            appended.retain(|(other, _)| *other != name);
            edits.set.retain(|(other, _)| *other != name);
            if values.len() > 1 && !is_joined_header(&name) {
                several.push(name.clone());
            }
            let value = joined(&name, values);
            edits.set.push((name, value));
        }
        Self { edits, several }
    }
}

/// One field of several, as Envoy and most applications join them.
fn joined(name: &str, mut values: Vec<Vec<u8>>) -> Vec<u8> {
    // Those that Envoy holds joined anyway have no empty part.
    if is_joined_header(name) && values.len() > 1 {
        values.retain(|value| !value.is_empty());
    }
    values.join(if name == "cookie" { &b"; "[..] } else { &b","[..] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_name_is_set_once_with_all_its_values() {
        let edits = Edits {
            remove: vec!["x-out".into(), "x-gone".into()],
            set: list(&[("x-set", "1"), ("x-alone", "2")]),
            append: list(&[
                ("x-out", "a"),
                ("x-set", "b"),
                ("x-more", "c"),
                ("x-out", ""),
                ("accept", "d"),
                ("x-new", "e"),
            ]),
            ..Edits::default()
        };
        let headers = list(&[("x-out", "forged"), ("x-set", "forged"), ("x-more", "theirs"), ("accept", "")]);
        let Forwarded { edits, several } = Forwarded::of(edits, &headers);
        let expected = [
            ("x-alone", "2"),
            ("x-out", "a,"),
            ("x-set", "1,b"),
            ("x-more", "theirs,c"),
            ("accept", "d"),
            ("x-new", "e"),
        ];
        assert_eq!((edits.set, edits.append), (list(&expected), Vec::new()));
        assert_eq!(several, ["x-out", "x-set", "x-more"]);
        assert_eq!(edits.remove, ["x-out", "x-gone"]);
    }
}
