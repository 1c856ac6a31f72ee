//! The two forms in which Envoy sends header fields.
//!
//! With `encode_raw_headers` every field comes by itself, in order, as bytes. Without, repeated fields come joined by a comma
//! and bytes that are no UTF-8 come as `!`: `a,b` may have been one field or two, and Envoy's own RBAC filter tells the two
//! apart (see `doubts`).

use std::collections::HashMap;

use palisade_wire::envoy::envoy::config::core::v3::HeaderMap;

use crate::doubts::trimmed;
use crate::question::HeaderList;

/// `header_map`: every field as it came. Pseudo header fields stand in fields of their own.
pub(super) fn raw(map: HeaderMap) -> HeaderList {
    let fields = map.headers.into_iter().map(|field| {
        let value = if field.raw_value.is_empty() { field.value.into_bytes() } else { field.raw_value };
        (field.key.to_ascii_lowercase(), trimmed(&value).to_vec())
    });
    fields.filter(|(name, _)| !name.starts_with(':')).collect()
}

/// `headers`: one value a name, in order of the names.
pub(super) fn joined(map: HashMap<String, String>) -> HeaderList {
    let fields = map.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), trimmed(value.as_bytes()).to_vec()));
    let mut list: HeaderList = fields.filter(|(name, _)| !name.starts_with(':')).collect();
    list.sort();
    list
}

#[cfg(test)]
mod tests {
    use palisade_wire::envoy::envoy::config::core::v3::HeaderValue;

    use super::*;

    fn list(fields: &[(&str, &str)]) -> HeaderList {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn raw_fields_keep_order_repetition_and_bytes() {
        let field =
            |key: &str, raw: &[u8]| HeaderValue { key: key.into(), raw_value: raw.into(), ..HeaderValue::default() };
        let map = HeaderMap {
            headers: vec![field(":path", b"/"), field("X-A", b" 1 "), field("x-b", b"\xff"), field("x-a", b"2,3")],
        };
        let expected =
            vec![("x-a".into(), b"1".to_vec()), ("x-b".into(), b"\xff".to_vec()), ("x-a".into(), b"2,3".to_vec())];
        assert_eq!(raw(map), expected);
        let old = HeaderValue { key: "x".into(), value: "v".into(), ..HeaderValue::default() };
        assert_eq!(raw(HeaderMap { headers: vec![old] }), list(&[("x", "v")]));
    }

    #[test]
    fn joined_fields_come_by_name() {
        let map = [("x-a", "1, 2"), (":path", "/a,b"), ("Accept", "a,b"), ("x-b", "\t")];
        let map = map.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(joined(map), list(&[("accept", "a,b"), ("x-a", "1, 2"), ("x-b", "")]));
    }
}
