//! JSON as `google.protobuf.Value` on the wire, which is how a header becomes metadata.

use serde_json::Value;

/// The message, encoded.
pub(super) fn encode(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => vec![0x08, 0x00],
        Value::Number(number) => {
            let mut out = vec![0x11];
            out.extend(number.as_f64().unwrap_or_default().to_le_bytes());
            out
        }
        Value::String(text) => field(3, text.as_bytes()),
        Value::Bool(flag) => vec![0x20, u8::from(*flag)],
        Value::Object(fields) => {
            let entries = fields.iter().map(|(key, value)| {
                let entry = [field(1, key.as_bytes()), field(2, &encode(value))].concat();
                field(1, &entry)
            });
            field(5, &entries.collect::<Vec<_>>().concat())
        }
        Value::Array(items) => {
            let items = items.iter().map(|item| field(1, &encode(item)));
            field(6, &items.collect::<Vec<_>>().concat())
        }
    }
}

/// A field of bytes with this number, which is below 16.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7F).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    out.extend(content);
    out
}
