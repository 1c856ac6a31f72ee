//! Settings of the certificate authority.

catalogue! {
    NO_AUDIENCE "PAL0901" Error "no audience is accepted"
        why "without an audience either no token would do, or every token of the cluster, whomever it was made for"
        fix "write the audience of the tokens, for example `audiences: [istio-ca]`, or leave the field out for that"
    BAD_SOURCE "PAL0902" Error "the place of the keys is not valid"
        why "tokens could not be verified, and nobody would be attested by them"
        fix "write the path of a file, or an http or https URL without credentials"
    BAD_ACCOUNT "PAL0903" Error "the service account is not valid"
        why "the list says who may ask for certificates of other workloads, so that nothing in it may be guessed"
        fix "write `namespace/serviceaccount`, for example `istio-system/ztunnel`"
}
