//! The refusal by which an agent learns that its own certificate is revoked. Nothing else tells it: whoever is revoked
//! is sent no more state.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const KEY: &str = "palisade-revoked-serial";

/// PERMISSION_DENIED for the holder of the certificate with this serial number (lower-case hex).
#[must_use]
pub fn revoked(serial: &str) -> Status {
    let mut status = Status::permission_denied("the certificate is revoked");
    if let Ok(value) = MetadataValue::try_from(serial) {
        status.metadata_mut().insert(KEY, value);
    }
    status
}

/// The serial number in such a refusal.
#[must_use]
pub fn revoked_serial(status: &Status) -> Option<&str> {
    let denied = status.code() == Code::PermissionDenied;
    status.metadata().get(KEY).filter(|_| denied)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_that_says_so_names_a_certificate() {
        assert_eq!(revoked_serial(&revoked("0a1b")), Some("0a1b"));
        assert_eq!(revoked_serial(&Status::permission_denied("the certificate is revoked")), None);
        let mut other = Status::unavailable("");
        *other.metadata_mut() = revoked("0a1b").metadata().clone();
        assert_eq!(revoked_serial(&other), None);
    }
}
