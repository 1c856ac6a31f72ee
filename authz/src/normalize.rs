//! Path normalisation, byte for byte what Envoy 1.40 does before RBAC sees `:path`.
//!
//! A path that we read otherwise than Envoy is a bypass, so nothing here is clever: the order of steps is
//! Envoy's (fragment, escaped slashes, dot segments and escapes, repeated slashes), the byte classes are
//! googleurl's, and `tests/golden/normalisation.tsv` holds what a real Envoy answered.

use std::borrow::Cow;

use palisade_policies::PathNormalization;

mod canonical;

/// Why a request target has no normal form. Envoy answers 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The target holds an encoded NUL.
    #[error("the path holds an encoded NUL")]
    Nul,
}

/// Normalises a request target: path and query, the fragment stripped, the query untouched.
///
/// ```
/// use palisade_authz::normalize::path;
/// use palisade_policies::PathNormalization::Base;
/// assert_eq!(path("/x/../%61dmin?q=%61", Base).unwrap(), "/admin?q=%61");
/// ```
///
/// # Errors
/// [`PathError`] where Envoy refuses the request with 400.
pub fn path(raw: &str, mode: PathNormalization) -> Result<Cow<'_, str>, PathError> {
    let target = raw.split_once('#').map_or(raw, |(before, _)| before);
    let (path, query) = split_query(target);
    let normal = match mode {
        PathNormalization::None => return Ok(Cow::Borrowed(target)),
        PathNormalization::Base => canonical::path(path)?,
        PathNormalization::MergeSlashes => merge_slashes(canonical::path(path)?),
        PathNormalization::DecodeAndMergeSlashes => {
            let decoded = decode_slashes(path);
            let canonical = canonical::path(&decoded)?.into_owned();
            merge_slashes(Cow::Owned(canonical))
        }
    };
    Ok(match normal {
        Cow::Borrowed(same) if same.len() == path.len() => Cow::Borrowed(target),
        other if query.is_empty() => other,
        other => Cow::Owned([other.as_ref(), query].concat()),
    })
}

/// Splits a target into the path and the query, which keeps its `?`.
#[must_use]
pub fn split_query(target: &str) -> (&str, &str) {
    target.find('?').and_then(|at| target.split_at_checked(at)).unwrap_or((target, ""))
}

/// The part of a target that `paths` and `notPaths` see: query and fragment removed.
#[must_use]
pub fn without_query(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or(target)
}

fn decode_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (replacement, consumed) = match after.get(..2) {
            Some("2f" | "2F") => ('/', 2),
            Some("5c" | "5C") => ('\\', 2),
            _ => ('%', 0),
        };
        out.push(replacement);
        rest = after.get(consumed..).unwrap_or("");
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn merge_slashes(path: Cow<'_, str>) -> Cow<'_, str> {
    if !path.contains("//") {
        return path;
    }
    let inner: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let lead = if path.starts_with('/') { "/" } else { "" };
    // Envoy joins what is left between a leading and a trailing slash: a path of slashes alone becomes `//`.
    let trail = if path.ends_with('/') { "/" } else { "" };
    Cow::Owned([lead, &inner.join("/"), trail].concat())
}
