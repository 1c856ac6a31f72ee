//! What exists in Istio and is not supported yet. Refused by name: a security setting that is silently ignored is
//! worse than none.

catalogue! {
    KIND "PAL0601" Error "the kind is not supported yet"
        why "ignoring it would leave requests unchecked that its author believes are checked"
        fix "remove it; until it is supported, check tokens before requests reach the mesh"
    ACTION "PAL0602" Error "the action CUSTOM is not supported yet"
        why "no provider would be asked, so that requests would pass that it should refuse"
        fix "remove the policy here, or express it as ALLOW and DENY policies"
    FIELD "PAL0603" Error "the field is not supported yet"
        why "the field changes who may reach what; ignoring it would change that silently"
        fix "remove the field"
    VALUE "PAL0604" Error "the value is not supported yet"
        why "the value changes who may reach what; ignoring it would change that silently"
        fix "use a supported value"
    MESH_KEY "PAL0605" Error "the key of the mesh configuration is not supported yet"
        why "the key changes how requests are decided; ignoring it would change that silently"
        fix "remove the key"
}
