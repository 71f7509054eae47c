//! What the documents name is there.

use std::{fs, path::Path};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// `docs/security.md` names the test of each promise, as `file.rs` followed by functions of it.
#[test]
fn the_tests_that_security_md_names_exist() {
    let document = fs::read_to_string(format!("{ROOT}/docs/security.md")).unwrap();
    let (mut file, mut source) = (String::new(), String::new());
    let (mut named, mut missing) = (0, Vec::new());
    for code in document.split('`').skip(1).step_by(2) {
        if Path::new(code).extension().is_some_and(|extension| extension == "rs") {
            let path = if code.contains('/') { code.to_owned() } else { format!("tests/tests/{code}") };
            source = fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_default();
            if source.is_empty() {
                missing.push(path.clone());
            }
            file = path;
        } else if code.matches('_').count() >= 3 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            named += 1;
            if !source.contains(&format!("fn {code}(")) {
                missing.push(format!("{code} in {file}"));
            }
        }
    }
    assert!(named > 60, "only {named} tests are named");
    assert!(missing.is_empty(), "{missing:#?}");
}
