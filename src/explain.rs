//! `palisade explain [CODE]`: what a diagnostic means, offline.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use palisade_policies::{Explanation, codes};

use crate::exit::{self, Exit};
use crate::output::print;

/// Which code.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A code such as PAL0101, as diagnostics print it; all of them are listed without one.
    code: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<Exit> {
    let Some(code) = &options.code else {
        print(&list())?;
        return Ok(Exit::Done);
    };
    let Some(explanation) = palisade_policies::explain(code) else {
        let message = format!("no diagnostic has the code `{code}`; `palisade explain` lists them");
        return Err(exit::usage(message));
    };
    print(&text(explanation))?;
    Ok(Exit::Done)
}

fn list() -> String {
    let mut text = String::new();
    for Explanation { code, severity, title, .. } in codes() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{code}  {:<7}  {title}", severity.to_string());
    }
    text
}

fn text(explanation: &Explanation) -> String {
    let Explanation { code, severity, title, why, fix } = explanation;
    format!("{code} ({severity}): {title}\n\n{why}\n\nFix: {fix}\n")
}

#[cfg(test)]
mod tests {
    use super::{codes, list, text};

    #[test]
    fn every_code_is_listed_and_explained() {
        let list = list();
        assert_eq!(list.lines().count(), codes().count());
        for explanation in codes() {
            assert!(list.lines().any(|line| line.starts_with(explanation.code) && line.ends_with(explanation.title)));
            let text = text(explanation);
            for part in [explanation.code, explanation.title, explanation.why, explanation.fix] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}
