//! Runs cargo.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// This repository.
pub const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Cargo in a folder, as from a shell. `cargo run` and `cargo test` set variables on which build scripts
/// depend: a build that inherits them compiles their crates (ring, rustls, sqlx) again.
pub fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name == "CARGO_MANIFEST_DIR" || name.starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The folder of this repository's builds, which contains this program.
///
/// # Panics
/// If the program was not built by cargo.
pub fn target() -> PathBuf {
    let this = std::env::current_exe().expect("a process knows its binary");
    let is_test = this.parent().is_some_and(|folder| folder.ends_with("deps"));
    this.ancestors().nth(if is_test { 3 } else { 2 }).expect("target/<profile>/…").to_owned()
}
