//! Drives Chromium through its devtools protocol, and records its errors.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

mod chromium;
mod devtools;
mod tab;

pub use chromium::Chromium;
pub use tab::{Look, Tab};

/// Builds the binaries that the harness of `tests` needs: cargo does not build other packages'
/// binaries if only these tests run.
///
/// # Panics
/// If the build fails.
pub async fn build_harness() {
    static BUILT: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    BUILT
        .get_or_init(|| async {
            let test = std::env::current_exe().expect("a process knows its binary");
            let folder = test.ancestors().nth(2).expect("target/<profile>/deps/test");
            let mut build = tokio::process::Command::new(env!("CARGO"));
            // Selects the whole workspace, so that nothing is built again after its tests were.
            build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().await.expect("cargo is there").success(), "the harness should build");
        })
        .await;
}
