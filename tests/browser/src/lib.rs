//! Drives Chromium through its devtools protocol, and notes what it complains of.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

mod chromium;
mod devtools;
mod tab;

pub use chromium::Chromium;
pub use tab::{Look, Tab};

/// The binaries that the harness of `tests` needs: those of other packages are
/// not built where these tests alone are run.
///
/// # Panics
/// If they can't be built.
pub async fn build_harness() {
    static BUILT: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    BUILT
        .get_or_init(|| async {
            let test = std::env::current_exe().expect("a process knows its binary");
            let folder = test.ancestors().nth(2).expect("target/<profile>/deps/test");
            let mut build = tokio::process::Command::new(env!("CARGO"));
            // With the whole workspace selected there is nothing to build where that was tested.
            build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().await.expect("cargo is there").success(), "the harness should build");
        })
        .await;
}
