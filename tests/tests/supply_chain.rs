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

/// Every build uses `Cargo.lock`; a command that may change it would build something else.
#[test]
fn every_build_goes_by_the_lock_file() {
    let scripts = fs::read_dir(Path::new(ROOT).join(".ci")).expect(".ci is there");
    let scripts = scripts.map(|entry| entry.expect("it can be read").path()).filter(|path| path.is_file());
    let mut looked_at = 0;
    for path in scripts.chain([Path::new(ROOT).join("Dockerfile")]) {
        for line in read(&path).lines().filter(|line| !line.trim_start().starts_with('#')) {
            for verb in ["build", "run", "test", "clippy", "check", "doc", "install", "metadata", "tree"] {
                // Skip headings and messages that mention commands.
                let is_told = line.trim_start().starts_with("step ") || line.contains("echo ");
                if line.contains(&format!("cargo {verb} ")) && !is_told {
                    looked_at += 1;
                    assert!(line.contains("--locked"), "{}: {line}", path.display());
                }
            }
        }
    }
    assert!(looked_at >= 8, "{looked_at} commands");
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
