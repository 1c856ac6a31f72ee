//! What values cost beyond the one that each counts as. A text in a list becomes an entry of an index, and a path template
//! a chain of them: without a weight of their own a few megabytes of such lists would take gigabytes to decide with.

use crate::yaml::{Node, Value};

/// What a text in a list costs more than a value.
const LISTED: usize = 3;

/// What each segment of a path template costs beside that.
const SEGMENT: usize = 3;

/// What a document's values cost beyond one each, in values.
pub(super) fn beyond(root: &Node) -> usize {
    let (mut sum, mut waiting) = (0usize, vec![root]);
    while let Some(node) = waiting.pop() {
        match &node.value {
            Value::Map(entries) => waiting.extend(entries.iter().map(|entry| &entry.value)),
            Value::Seq(items) => {
                waiting.extend(items.iter().filter(|item| !matches!(item.value, Value::Scalar(_))));
                sum = items.iter().fold(sum, |sum, item| sum.saturating_add(listed(item)));
            }
            Value::Scalar(_) => {}
        }
    }
    sum
}

fn listed(item: &Node) -> usize {
    match &item.value {
        Value::Scalar(scalar) if scalar.text.contains("{*}") || scalar.text.contains("{**}") => {
            LISTED + SEGMENT * scalar.text.matches('/').count()
        }
        Value::Scalar(_) => LISTED,
        _ => 0,
    }
}
