//! Shorter texts.

/// The text without one half, one quarter, and so on; without one character where it is short.
pub(super) fn shorter(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let count = characters.len();
    let mut result = Vec::new();
    let mut size = count / 2;
    while size > 0 {
        for start in (0..count).step_by(size) {
            let rest = characters.iter().enumerate().filter(|(at, _)| !(start..start + size).contains(at));
            result.push(rest.map(|(_, character)| *character).collect());
        }
        // Single characters are worth a try only where there are few.
        size = if size > 1 && size / 2 == 1 && count > 24 { 0 } else { size / 2 };
    }
    result
}

/// The list without one half, one quarter, and so on, down to each of its items.
pub(super) fn without_one<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let mut result = Vec::new();
    let mut size = items.len().div_ceil(2);
    while size > 0 {
        for start in (0..items.len()).step_by(size) {
            let kept = items.iter().enumerate().filter(|(at, _)| !(start..start + size).contains(at));
            result.push(kept.map(|(_, item)| item.clone()).collect());
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    result
}

#[cfg(test)]
mod tests {
    use super::{shorter, without_one};

    #[test]
    fn every_result_is_shorter() {
        assert!(shorter("abcdef").iter().all(|text| text.len() < 6));
        assert!(shorter("ab").contains(&"a".to_owned()));
        assert!(shorter("").is_empty());
        assert_eq!(without_one(&[1, 2]), [vec![2], vec![1]]);
        assert_eq!(without_one(&[1, 2, 3]), [vec![3], vec![1, 2], vec![2, 3], vec![1, 3], vec![1, 2]]);
        assert_eq!(without_one(&[1, 2, 3, 4]).len(), 6);
    }
}
