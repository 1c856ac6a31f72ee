//! PeerAuthentication.

catalogue! {
    PORTS_WITHOUT_SELECTOR "PAL0301" Error "port modes are set without a selector"
        why "ports are read from the policy of one workload only; in a namespace or mesh policy they would be ignored"
        fix "add a selector with labels, or remove `portLevelMtls`"
    PORTS_EMPTY "PAL0302" Error "portLevelMtls is empty"
        why "Istio refuses it"
        fix "add a port, or remove the field"
    BAD_PORT_KEY "PAL0303" Error "a key of portLevelMtls is no port"
        why "the mode would apply to no port"
        fix "write the application's port, from 1 to 65535"
}
