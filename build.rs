//! Compiles `proto/` (with protox, so that no protoc is needed) and puts the
//! DuckDB library where the binaries of the build tree look for it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The directory below `lib/` that holds libduckdb, in a build tree and in an
/// installed prefix. It carries the version so that two can be installed side
/// by side during an upgrade.
const LIBRARY_HOME: &str = "lib/duckgres/1.5.5";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");

    let descriptors = protox::compile(["worker.proto", "control.proto", "reload.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // These messages carry cancel keys and TLS secrets: no Debug output.
        .skip_debug([
            "AcceptConnection",
            "CancelRequest",
            "Frozen",
            "FrozenStatement",
            "FrozenVariable",
        ])
        .message_attribute("StatusReply", "#[derive(serde::Serialize)]")
        .message_attribute("WorkerStatus", "#[derive(serde::Serialize)]")
        .message_attribute("DatabaseStatus", "#[derive(serde::Serialize)]")
        .message_attribute("UserStatus", "#[derive(serde::Serialize)]")
        .message_attribute("BanStatus", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;

    link_libduckdb()?;
    Ok(())
}

fn link_libduckdb() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(env::var_os("DUCKDB_LIB_DIR").unwrap_or_else(|| ".duckdb".into()));
    let library = directory.join("libduckdb.so");
    println!("cargo:rerun-if-changed={}", library.display());
    let library = library.canonicalize().map_err(|error| {
        format!(
            "{} ({error}); run packaging/libduckdb.sh once, it fetches the library",
            library.display()
        )
    })?;

    // OUT_DIR is <target>/<profile>/build/<package>/out. Binaries are in
    // <target>/<profile>, tests and benches one level below; $ORIGIN/../lib of
    // each must lead to the library, just as /usr/bin leads to /usr/lib.
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let profile = out
        .ancestors()
        .nth(3)
        .ok_or("OUT_DIR is not inside a target directory")?;
    let target = profile.parent().ok_or("the profile directory has no parent")?;
    for base in [target, profile] {
        link(&library, &base.join(LIBRARY_HOME).join("libduckdb.so"))?;
    }
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,$ORIGIN/../{LIBRARY_HOME}");
    Ok(())
}

fn link(library: &Path, link: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == library) {
        return Ok(());
    }
    if let Some(directory) = link.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::os::unix::fs::symlink(library, link),
    }
}
