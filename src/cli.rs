//! The command tree: flags are parsed here, and each verb has a file of its own.

use std::ffi::OsString;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::exit::Exit;
use crate::{agent, audit, ca, demo, explain, identity, policy, proxy, server, version};

/// Zero-trust identity and policy engine: a CA and its agent, Istio's authorization policies, an mTLS proxy, an audit log.
///
/// Exit codes: 0 done or allowed, 1 failure, 2 denied, 3 validation failed, 4 undecided, 64 usage, 65 bad input,
/// 70 a task of a long-running process died.
#[derive(Parser, Debug)]
#[command(name = "palisade", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Start a small mesh on loopback and tell its story with real traffic.
    Demo(demo::Options),
    /// Run the control plane: CA, policy distribution, audit ingest.
    Server(server::Options),
    /// Run the node agent: keeps an identity and serves it on a Unix socket.
    Agent(agent::Options),
    /// Run the mTLS proxy beside a workload.
    Proxy(proxy::Options),
    /// Check policies, and ask what they decide.
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Ask who called what, and what was decided.
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Operate the certificate authority.
    #[command(subcommand)]
    Ca(ca::Verb),
    /// Ask the agent of this machine which identities it has, and who gets them.
    #[command(subcommand)]
    Identity(identity::Verb),
    /// Explain a diagnostic code such as PAL0101, or list them all.
    Explain(explain::Options),
    /// Print the version.
    Version(version::Options),
    /// A workload of the demo.
    #[command(hide = true)]
    DemoApp(demo::app::Options),
    /// Cleans up after a demo that was killed.
    #[command(hide = true)]
    DemoJanitor(demo::janitor::Options),
}

/// Parses the command line. Help and version are printed and end with 0, a wrong flag ends with 64.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
    Cli::try_parse_from(arguments).map_err(|error| {
        // A closed pipe is the only way this fails, and then nobody reads the message.
        let _ = error.print();
        if error.use_stderr() { Exit::Usage } else { Exit::Done }
    })
}

impl Cli {
    /// Runs the verb to its end.
    pub(crate) fn run(self) -> Result<Exit> {
        match self.verb {
            Verb::Demo(options) => demo::run(options),
            Verb::Server(options) => server::run(options),
            Verb::Agent(options) => agent::run(options),
            Verb::Proxy(options) => proxy::run(&options),
            Verb::Policy(verb) => verb.run(),
            Verb::Audit(verb) => verb.run(),
            Verb::Ca(verb) => verb.run(),
            Verb::Identity(verb) => verb.run(),
            Verb::Explain(options) => explain::run(&options),
            Verb::Version(options) => version::run(&options),
            Verb::DemoApp(options) => demo::app::run(options),
            Verb::DemoJanitor(options) => demo::janitor::run(&options),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, Exit, parse};

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_flag_ends_with_64_and_help_with_0() {
        let parse = |words: &[&str]| parse(words.iter().map(Into::into)).map(|_| ());
        assert_eq!(parse(&["palisade", "server", "--no-such-flag"]), Err(Exit::Usage));
        assert_eq!(parse(&["palisade", "--help"]), Err(Exit::Done));
        assert_eq!(parse(&["palisade"]), Err(Exit::Usage));
    }
}
