//! Logs on stderr, as text for eyes or JSON lines for machines. Keys and tokens have no `Display`, so they cannot get here.

use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::exit;

/// How to log.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogOptions {
    /// Least level to log, or a filter such as `info,palisade_proxy=debug`.
    #[arg(long, default_value = "info", env = "PALISADE_LOG", help_heading = "Logging")]
    log_level: String,
    /// Text for eyes, or one JSON object a line.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "PALISADE_LOG_FORMAT", help_heading = "Logging")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Installs the process' log. Called once, by long-running verbs only.
pub(crate) fn init(options: &LogOptions) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.log_level).map_err(|error| {
        exit::usage(format!("--log-level `{}`: {error}; use error, warn, info, debug or trace", options.log_level))
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A line that cannot be written is lost: to say so on stderr as well would fail in the same way, and panic.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    let builder = builder.with_writer(std::io::stderr).with_ansi(colour);
    match options.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
