//! Times as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why a time cannot be read. Names the value and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// Neither a length of time nor a time.
    #[error(
        "`{0}` is no time; use how long ago (`90s`, `15m`, `1h`, `2days`) or a time in UTC (`2026-01-31T12:00:00Z`)"
    )]
    Unreadable(String),
    /// A time with an offset other than `Z`.
    #[error("`{0}` is not in UTC; write it with a final `Z`, as in `2026-01-31T12:00:00Z`")]
    Offset(String),
    /// Before 1970, or after the year 2554.
    #[error("`{0}` is out of range; use a time after 1970")]
    Range(String),
}

/// Reads `--since` and `--until`: how long before `now`, or RFC 3339 in UTC. Times are Unix nanoseconds.
///
/// # Errors
/// [`WindowError`]; its text is fit for the user.
///
/// ```
/// # fn main() -> Result<(), palisade_audit::window::WindowError> {
/// use palisade_audit::window::parse;
/// assert_eq!(parse("1m", 100_000_000_000)?, 40_000_000_000);
/// assert_eq!(parse("1970-01-01T00:00:01Z", 0)?, 1_000_000_000);
/// # Ok(())
/// # }
/// ```
pub fn parse(text: &str, now: u64) -> Result<u64, WindowError> {
    let shown = || text.chars().take(80).collect::<String>().escape_debug().to_string();
    let trimmed = text.trim();
    if trimmed == "now" {
        return Ok(now);
    }
    if let Ok(ago) = humantime::parse_duration(trimmed) {
        let ago = u64::try_from(ago.as_nanos()).map_err(|_| WindowError::Range(shown()))?;
        return now.checked_sub(ago).ok_or_else(|| WindowError::Range(shown()));
    }
    match humantime::parse_rfc3339_weak(trimmed) {
        Ok(time) => nanos(time).ok_or_else(|| WindowError::Range(shown())),
        Err(_) if has_offset(trimmed) => Err(WindowError::Offset(shown())),
        Err(_) => Err(WindowError::Unreadable(shown())),
    }
}

/// `2026-01-31T12:00:00+01:00`: a time but for its end.
fn has_offset(text: &str) -> bool {
    text.char_indices()
        .rfind(|(_, letter)| matches!(letter, '+' | '-'))
        .and_then(|(at, _)| text.get(..at))
        .is_some_and(|time| time.contains('T') && humantime::parse_rfc3339_weak(time).is_ok())
}

fn nanos(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn format(time_ns: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(time_ns)).to_string()
}

/// RFC 3339 in UTC with nanoseconds.
#[must_use]
pub fn format_exact(time_ns: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(time_ns)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn both_forms_are_read() {
        let now = 1_000_000 * SECOND;
        for (text, expected) in [
            ("1h", now - 3600 * SECOND),
            (" 15m ", now - 900 * SECOND),
            ("1day 2h", now - 26 * 3600 * SECOND),
            ("now", now),
            ("1970-01-02T00:00:00Z", 86400 * SECOND),
            ("1970-01-02 00:00:00", 86400 * SECOND),
            ("1970-01-02T00:00:00.5Z", 86400 * SECOND + SECOND / 2),
        ] {
            assert_eq!(parse(text, now), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, error) in [
            ("", WindowError::Unreadable(String::new())),
            ("yesterday", WindowError::Unreadable("yesterday".into())),
            ("\u{1b}[2J", WindowError::Unreadable("\\u{1b}[2J".into())),
            ("-1h", WindowError::Unreadable("-1h".into())),
            ("2026-01-31T12:00:00+01:00", WindowError::Offset("2026-01-31T12:00:00+01:00".into())),
            ("2026-13-31T12:00:00Z", WindowError::Unreadable("2026-13-31T12:00:00Z".into())),
            ("100years", WindowError::Range("100years".into())),
            ("9999-01-01T00:00:00Z", WindowError::Range("9999-01-01T00:00:00Z".into())),
        ] {
            assert_eq!(parse(text, 5 * SECOND), Err(error), "{text}");
        }
    }

    #[test]
    fn every_time_has_a_form() {
        assert_eq!(format(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_exact(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }
}
