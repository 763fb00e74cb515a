//! Gives the library the soname of the one that it replaces. cargo-c does so by itself.

/// `lib`, `name` and `version` of the library in Cargo.toml.
const SONAME: &str = "libcvmfs_cache.so.2.12.0";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
}
