//! Names of users and groups, from the machine's own files: the agent asks no directory service on the way to an identity.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// Bounds what is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

pub(super) fn user_name(uid: u32) -> Option<String> {
    name("/etc/passwd", uid)
}

pub(super) fn group_name(gid: u32) -> Option<String> {
    name("/etc/group", gid)
}

/// Both files have the name first and the number third (passwd(5), group(5)). The first line of a number counts.
fn name(path: &str, number: u32) -> Option<String> {
    let lines = BufReader::new(File::open(path).ok()?.take(MAX_BYTES)).lines();
    lines.map_while(Result::ok).find_map(|line| name_in(&line, number))
}

fn name_in(line: &str, number: u32) -> Option<String> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let found: u32 = fields.nth(1)?.parse().ok()?;
    (found == number).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_the_third_field() {
        assert_eq!(name_in("web:x:1000:1001:Web:/home/web:/bin/sh", 1000), Some("web".to_owned()));
        for (line, number) in [("web:x:1000:1001:", 1001), ("web", 0), ("", 0), (":x:0:", 0), ("+::::::", 0)] {
            assert_eq!(name_in(line, number), None, "{line}");
        }
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }
}
