//! The words by which both protocols name what a decision is about.

use palisade_authz::Attribute;

/// An attribute, as the evaluation input of the command line calls it.
pub(crate) const fn attribute(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::SourcePrincipal => "source.principal",
        Attribute::SourceIp => "source.ip",
        Attribute::RemoteIp => "source.remoteIp",
        Attribute::DestinationIp => "destination.ip",
        Attribute::DestinationPort => "destination.port",
        Attribute::Sni => "connection.sni",
        Attribute::Method => "http.method",
        Attribute::Path => "http.path",
        Attribute::Host => "http.host",
        Attribute::Scheme => "http.scheme",
        Attribute::Headers => "http.headers",
        Attribute::Claims => "jwt.claims",
        Attribute::Metadata => "metadata",
    }
}
