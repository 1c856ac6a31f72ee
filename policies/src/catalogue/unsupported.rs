//! What exists in Istio and is not supported yet. Refused by name: a security setting that is silently ignored is
//! worse than none.

catalogue! {
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
