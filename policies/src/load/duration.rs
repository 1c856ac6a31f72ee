//! Durations as Go writes them (`1h30m`, `1.5s`, `250ms`): the form that Istio's resources and mesh configuration take.

use std::time::Duration;

/// Units with their length in nanoseconds, longer names before the names they begin with.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// The longest duration that Go knows, in nanoseconds.
const MAX: u128 = i64::MAX as u128;

/// Reads a duration as Go's `time.ParseDuration`. `None` for everything else, for negative ones and for more than Go
/// can hold (292 years).
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0u128;
    loop {
        let (nanoseconds, after) = part(rest)?;
        total = total.checked_add(nanoseconds).filter(|total| *total <= MAX)?;
        if after.is_empty() {
            return u64::try_from(total).ok().map(Duration::from_nanos);
        }
        rest = after;
    }
}

/// One number with its unit, and what stands behind it.
fn part(text: &str) -> Option<(u128, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (unit, rest) = UNITS.iter().find_map(|(name, unit)| Some((*unit, rest.strip_prefix(name)?)))?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // What is below a nanosecond of an hour does not count: 15 digits are enough, and cannot overflow.
    let (mut value, mut scale) = (0u128, 1u128);
    for digit in fraction.bytes().take(15) {
        value = value * 10 + u128::from(digit.saturating_sub(b'0'));
        scale *= 10;
    }
    let fraction = (value * unit).checked_div(scale)?;
    Some((u128::from(whole) * unit + fraction, rest))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100ms", 100_000_000),
            ("1us", 1_000),
            ("1µs", 1_000),
            ("7ns", 7),
            ("0.0009s", 900_000),
            ("0.33333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanoseconds)), "{text}");
        }
        let long = "9".repeat(100) + "s";
        for text in ["", "5", "s", ".s", "-1s", "5 s", "5x", "1h-1m", "1s5", "apple", "9223372036854775808ns", &long] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
