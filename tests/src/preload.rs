//! Small libraries in C that stand between a process of a test and the kernel.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Compiles `source` into `<name>.so` in `directory` and returns the setting that loads it into a process, for `env`. Needs a C
/// compiler, as the build does.
pub(crate) fn library(directory: &Path, name: &str, source: &str) -> Result<String> {
    let (text, library) = (directory.join(name).with_extension("c"), directory.join(name).with_extension("so"));
    fs::write(&text, source)?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let made = Command::new(&compiler).args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &text]).output();
    let made = made.with_context(|| format!("cannot run {}", compiler.display()))?;
    ensure!(made.status.success(), "{name}.c: {}", String::from_utf8_lossy(&made.stderr));
    Ok(format!("LD_PRELOAD={}", library.display()))
}
