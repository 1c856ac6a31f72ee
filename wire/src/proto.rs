//! Generated code, laid out as the packages are nested: generated types name each other by
//! relative paths. The crate root gives each package its short name.

/// Packages of Istio.
pub(crate) mod istio {
    /// `istio.v1`.
    pub(crate) mod v1 {
        /// `istio.v1.auth`.
        pub mod auth {
            tonic::include_proto!("istio.v1.auth");
        }
    }
}

/// Packages of this project.
pub(crate) mod palisade {
    /// `palisade.admin`.
    pub(crate) mod admin {
        /// `palisade.admin.v1`.
        pub mod v1 {
            tonic::include_proto!("palisade.admin.v1");
        }
    }
    /// `palisade.agents`.
    pub(crate) mod agents {
        /// `palisade.agents.v1`.
        pub mod v1 {
            tonic::include_proto!("palisade.agents.v1");
        }
    }
    /// `palisade.audit`.
    pub(crate) mod audit {
        /// `palisade.audit.v1`.
        pub mod v1 {
            tonic::include_proto!("palisade.audit.v1");
        }
    }
    /// `palisade.control`.
    pub(crate) mod control {
        /// `palisade.control.v1`.
        pub mod v1 {
            tonic::include_proto!("palisade.control.v1");
        }
    }
    /// `palisade.node`.
    pub(crate) mod node {
        /// `palisade.node.v1`.
        pub mod v1 {
            tonic::include_proto!("palisade.node.v1");
        }
    }
}

/// What stands outside any package: the SPIFFE Workload API.
pub mod unpackaged {
    tonic::include_proto!("_");
}
