//! The mesh configuration.

catalogue! {
    BAD_MESH_DOMAIN "PAL0501" Error "the mesh's trust domain is not valid"
        why "identities of the mesh begin with it"
        fix "write a trust domain: lower case letters, digits, `.`, `-` and `_`, at most 255 characters"
    UNUSED_KEY "PAL0502" Warning "the key of Istio's mesh configuration is not used here"
        why "it is known and accepted, and nothing here depends on it"
        fix "nothing, if that is expected"
}
