//! `palisade ca`: operating the certificate authority.

mod authorities;
mod bundle;
mod entry;
mod issued;
mod join_token;
mod revoke;
mod table;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::Exit;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Make a join token: single use, for one SPIFFE ID, printed once.
    JoinToken(join_token::Options),
    /// Show each signing authority, who has not acknowledged it, and what happens next.
    Status(authorities::StatusOptions),
    /// Take one step of replacing the signing authority.
    Rotate(authorities::RotateOptions),
    /// Have the certificates of an old authority replaced at once.
    Taint(authorities::TaintOptions),
    /// Revoke certificates before they expire: by SPIFFE ID or serial number.
    Revoke(revoke::RevokeOptions),
    /// List what is revoked and has not expired.
    Revoked(revoke::RevokedOptions),
    /// List what was issued: to whom, who asked, how it proved itself and why, newest first.
    Issued(issued::Options),
    /// Print the trust bundle: what others need to verify this trust domain's identities.
    Bundle(bundle::Options),
    /// Registration entries: which workload gets which identity.
    #[command(subcommand)]
    Entry(entry::Verb),
}

impl Verb {
    pub(crate) fn run(self) -> Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self {
                Self::JoinToken(options) => join_token::run(&options).await,
                Self::Status(options) => authorities::status(&options).await,
                Self::Rotate(options) => authorities::rotate(&options).await,
                Self::Taint(options) => authorities::taint(&options).await,
                Self::Revoke(options) => revoke::revoke(&options).await,
                Self::Revoked(options) => revoke::revoked(&options).await,
                Self::Issued(options) => issued::run(&options).await,
                Self::Bundle(options) => bundle::run(&options).await,
                Self::Entry(verb) => entry::run(verb).await,
            }
        })
    }
}
