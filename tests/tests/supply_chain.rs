//! The rules about builds and dependencies that no compiler enforces.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The manifests of all crates, including nested ones.
fn manifests() -> Vec<String> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(ROOT)
        .output()
        .expect("cargo is there");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("cargo answers JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    packages.iter().map(|package| package["manifest_path"].as_str().expect("a path").to_owned()).collect()
}

/// The lines of a section of a manifest, without comments.
fn section<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    let lines = manifest.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let mut lines = lines.skip_while(|line| *line != format!("[{name}]")).skip(1);
    let mut said = Vec::new();
    for line in lines.by_ref().take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty()) {
        said.push(line);
    }
    said
}

#[test]
fn unsafe_code_is_forbidden_in_every_crate() {
    let root = read("Cargo.toml");
    assert!(section(&root, "workspace.lints.rust").contains(&"unsafe_code = \"forbid\""));
    let manifests = manifests();
    assert!(manifests.len() >= 9, "{manifests:?}");
    for manifest in manifests {
        assert_eq!(section(&read(&manifest), "lints"), ["workspace = true"], "{manifest}");
    }
}

/// Every command builds what `Cargo.lock` names, because no manifest asks for anything else.
#[test]
fn the_lock_file_fits_the_manifests() {
    let updated = Command::new(env!("CARGO"))
        .args(["update", "--workspace", "--locked", "--offline"])
        .current_dir(ROOT)
        .output()
        .expect("cargo is there");
    assert!(updated.status.success(), "{}", String::from_utf8_lossy(&updated.stderr));
}

/// All external dependencies come from crates.io, with a checksum.
#[test]
fn everything_comes_from_the_registry_with_a_checksum() {
    let lock = read("Cargo.lock");
    let packages: Vec<&str> = lock.split("[[package]]").skip(1).collect();
    assert!(packages.len() > 300);
    for package in packages {
        let has = |key: &str| package.lines().any(|line| line.starts_with(key));
        let registry = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        assert!(!has("source") || (has(registry) && has("checksum = \"")), "{package}");
    }
}
