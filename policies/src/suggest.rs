//! "Did you mean": the nearest known word to one that is not known.

/// The candidate nearest to a word, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer text than any known word by far is no slip, and comparing it would cost its square.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let word = plain(word);
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two texts, an exchange of neighbours counting as one.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, a) in a.chars().enumerate() {
        let mut next = vec![row + 1];
        for (column, b_char) in b.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut cell = (at(&last, column) + usize::from(a != *b_char))
                .min(at(&last, column + 1) + 1)
                .min(at(&next, column) + 1);
            let swapped =
                column.checked_sub(1).is_some_and(|left| previous == Some(*b_char) && b.get(left) == Some(&a));
            if swapped {
                cell = cell.min(at(&before, column.saturating_sub(1)) + 1);
            }
            next.push(cell);
        }
        previous = Some(a);
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, edits) in [("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("same", "same", 0)] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn slips_find_the_word_and_strangers_find_none() {
        let known = ["principals", "namespaces", "ipBlocks", "notIpBlocks"];
        assert_eq!(nearest("principal", known), Some("principals"));
        assert_eq!(nearest("ip_blocks", known), Some("ipBlocks"));
        assert_eq!(nearest("ipblokcs", known), Some("ipBlocks"));
        assert_eq!(nearest("cluster", known), None);
        assert_eq!(nearest(&"p".repeat(1000), known), None);
    }
}
