//! Where a token was found, which decides how it is taken out of the request again.

/// A token with its place.
pub(super) struct Found<'p> {
    pub(super) token: Vec<u8>,
    pub(super) place: Place<'p>,
}

pub(super) enum Place<'p> {
    Header(&'p str),
    Param(&'p str),
    /// Envoy leaves cookies as they are.
    Cookie,
}
