//! How `palisade ca` shows lists: columns as wide as they must be, and times that people and programs read alike.

use std::time::{Duration, UNIX_EPOCH};

use clap::ValueEnum;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns.
    Table,
    /// One document.
    Json,
}

/// Columns with two spaces between them; the first row is the head.
pub(super) fn render<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Unix seconds as RFC 3339; `-` for none.
pub(super) fn time(seconds: u64) -> String {
    time_or_null(seconds).unwrap_or_else(|| "-".to_owned())
}

/// Unix seconds as RFC 3339, nothing for 0.
pub(super) fn time_or_null(seconds: u64) -> Option<String> {
    let time = (seconds > 0).then(|| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))??;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

#[cfg(test)]
mod tests {
    use super::{render, time};

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [["A", "B"], ["long", "x"], ["s", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(render(&rows), "A     B\nlong  x\ns\n");
        assert_eq!((time(0).as_str(), time(86_400).as_str()), ("-", "1970-01-02T00:00:00Z"));
    }
}
