//! Compiles the protos with protox, so no system protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "istio_ca.proto",
        "workload.proto",
        "control.proto",
        "audit.proto",
        "admin.proto",
        "agents.proto",
        "node.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
