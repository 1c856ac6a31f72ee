//! What both protocols share: rejections, and the bounds on what a client may ask.

use palisade_wire::SECRET_TYPE_URL;
use tonic::Status;

use crate::metrics::Metrics;
use crate::secrets::view;

/// Most names one stream may ask for.
pub(crate) const MAX_NAMES: usize = 256;
/// Longest excerpt of a client's text in our log.
const MAX_TEXT: usize = 200;

/// Counts and logs a rejection, and gives it as one sentence. Nothing is sent: the same bytes would be rejected again, so the stream
/// waits for other content.
pub(crate) fn record(metrics: &Metrics, node: &str, names: &str, message: &str) -> Box<str> {
    metrics.nacks.inc();
    let (node, names, reason) = (excerpt(node), excerpt(names), excerpt(message));
    tracing::warn!(
        %node, %names, %reason, "an SDS client rejected a secret; it keeps its old one until the content changes"
    );
    format!("SDS client `{node}` rejected {names}: {reason}").into()
}

/// Refuses other resource types than secrets.
pub(crate) fn check_type(type_url: &str) -> Result<(), Status> {
    if type_url.is_empty() || type_url == SECRET_TYPE_URL {
        return Ok(());
    }
    Err(Status::invalid_argument("this stream serves secrets only"))
}

/// Bounds the number of names, and logs those that stand for nothing here.
pub(crate) fn check_names<'a>(node: &str, names: impl ExactSizeIterator<Item = &'a String>) -> Result<(), Status> {
    if names.len() > MAX_NAMES {
        return Err(Status::resource_exhausted("too many resource names on one stream"));
    }
    for name in names.filter(|name| !view::is_known(name)) {
        tracing::info!(node = %excerpt(node), name = %excerpt(name), "an SDS client asks for an unknown secret");
    }
    Ok(())
}

/// The beginning of a foreign text, without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect()
}
