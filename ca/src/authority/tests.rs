use palisade_identity::UnixTime;

use super::*;

#[derive(Debug)]
struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

/// Trap 50: it signs and records, and yet nobody who has its bundle could talk to it.
#[tokio::test]
async fn trap_50_a_server_whose_own_certificate_would_be_refused_is_not_able() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let open = |dir: &tempfile::TempDir| {
        Authority::open(CaConfig::new(dir.path(), domain.clone()), Arc::new(RealClock) as Arc<dyn Clock>)
    };
    let (one, other) = (open(&dirs[0]).await.unwrap(), open(&dirs[1]).await.unwrap());
    assert!(one.able());
    one.server.store(other.server.load_full());
    assert!(!one.able());
}
