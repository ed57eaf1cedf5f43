//! Links the atomic additions; see `atomics/atomics.c`.

fn main() {
    println!("cargo::rerun-if-changed=atomics");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-search=native={folder}/atomics");
        println!("cargo::rustc-link-lib=static=dunlin_atomics");
    }
}
