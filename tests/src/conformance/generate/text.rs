//! Texts that policies compare: the pattern forms, and texts that match one or nearly do.

use crate::conformance::dice::Dice;

/// A pattern over one of the words: exact, `prefix*`, `*suffix`, `*`, or one that only looks like a pattern.
pub(super) fn pattern(dice: &mut Dice, words: &[String]) -> String {
    let word = dice.pick(words).clone();
    match dice.below(20) {
        0..=8 => word,
        9..=11 => format!("{}*", head(dice, &word)),
        12..=14 => format!("*{}", tail(dice, &word)),
        15..=17 => "*".to_owned(),
        18 => odd(dice, &word),
        _ => near(dice, &word),
    }
}

fn odd(dice: &mut Dice, word: &str) -> String {
    let (head, tail) = (head(dice, word), tail(dice, word));
    match dice.below(5) {
        0 => format!("**{tail}"),
        1 => format!("{head}**"),
        2 => format!("*{head}*"),
        3 => format!("{head}*{tail}"),
        _ => format!("{head}.{tail}+"),
    }
}

/// A text that a pattern matches, if it is what it looks like.
pub(super) fn instance(dice: &mut Dice, pattern: &str, words: &[String]) -> String {
    let filler = || words.first().cloned().unwrap_or_default();
    if pattern == "*" {
        return dice.pick_any(words).cloned().unwrap_or_default();
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) if dice.chance(80) => format!("{}{suffix}", filler()),
        (Some(suffix), _) => suffix.to_owned(),
        (None, Some(prefix)) if dice.chance(80) => format!("{prefix}{}", filler()),
        (None, Some(prefix)) => prefix.to_owned(),
        (None, None) => pattern.to_owned(),
    }
}

/// A text like `word`, and seldom `word` itself.
pub(super) fn near(dice: &mut Dice, word: &str) -> String {
    let mut characters: Vec<char> = word.chars().collect();
    let at = dice.below(characters.len().max(1));
    match dice.below(6) {
        0 => characters.truncate(at),
        1 => characters.push(*dice.pick(&['x', '/', '.', '1', 'A'])),
        2 => characters.insert(0, *dice.pick(&['x', '/', '.', '1', 'A'])),
        3 => return word.to_ascii_uppercase(),
        4 => return word.to_ascii_lowercase(),
        _ => {
            if let Some(character) = characters.get_mut(at) {
                *character = *dice.pick(&['x', 'a', '.', '*', '-', '_']);
            }
        }
    }
    characters.into_iter().collect()
}

/// The beginning of a word, at least one character of it.
fn head(dice: &mut Dice, word: &str) -> String {
    let count = word.chars().count();
    word.chars().take(dice.between(1, count.max(1))).collect()
}

/// The end of a word, at least one character of it.
fn tail(dice: &mut Dice, word: &str) -> String {
    let count = word.chars().count();
    word.chars().skip(dice.below(count.max(1))).collect()
}
