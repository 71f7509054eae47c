//! Checks that everything the documents name exists, and that generated pages are current.

use std::{fs, path::Path};

use common::config::{self, FILE, Variable};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// `docs/security.md` names the tests of each promise: `file.rs` followed by its functions.
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

/// The text above the tables of `docs/configuration.md`.
const INTRODUCTION: &str = "\
# Configuration

`api` and `worker` read environment variables, and a `.env` file in the folder they start in
(`.env.example` is a template). A blank value counts as not set. A missing or malformed value stops
the start with one line that names the variable and the accepted values. `api --help` and
`worker --help` list the variables, too.

A variable with `_FILE` after its name takes the path of a file that holds the value, such as a
secret of Docker or Kubernetes. Line breaks at the end of the file are removed. A variable and its
file together, or a file that can't be read, stop the start.

`cargo run` reads the same variables. With `DATABASE_URL` it uses that Postgres, with
`STRIPE_SECRET_KEY` the real Stripe. `BIND_ADDR` is `127.0.0.1:3000` there, and three variables are
its own: `SANDBOX_STRIPE_ADDR`, the address of the fake Stripe (`127.0.0.1:12111`),
`SANDBOX_STRIPE_URL`, where browsers reach its payment pages if not there, and
`SANDBOX_WEBHOOK_URL`, where it sends events if not to the api of this machine. `cargo run -- stripe`
starts the fake Stripe alone.

`SSL_CERT_FILE` or `SSL_CERT_DIR`, read by the TLS library, name certificates of authorities to use
instead of the machine's.

This page is generated: `UPDATE=1 cargo test -p tests configuration_md` writes it.
";

/// `docs/configuration.md`, generated from the descriptions of the variables.
fn page() -> String {
    let (api, worker) = (api::variables(), worker::variables());
    let (api, worker): (Vec<_>, Vec<_>) = (config::variables(&api).collect(), config::variables(&worker).collect());
    let has = |all: &[Variable<'_>], name| all.iter().any(|variable| variable.name == name);
    let (both, api): (Vec<_>, Vec<_>) = api.into_iter().partition(|variable| has(&worker, variable.name));
    let worker: Vec<_> = worker.into_iter().filter(|variable| !has(&both, variable.name)).collect();
    let mut page = INTRODUCTION.to_owned();
    for (title, variables) in [("Both programs", both), ("api", api), ("worker", worker)] {
        page += &format!("\n## {title}\n\n| variable | default | meaning | takes |\n|---|---|---|---|\n");
        for Variable { name, default, help, takes, .. } in variables {
            let default = if ["required", "none"].contains(&default) { default.into() } else { format!("`{default}`") };
            let file = if config::SECRETS.contains(&name) { format!(" or `{name}{FILE}`") } else { String::new() };
            page += &format!("| `{name}`{file} | {default} | {help} | {takes} |\n");
        }
    }
    page
}

/// `UPDATE=1` writes the page after a change of a variable.
#[test]
fn configuration_md_is_fresh() {
    let path = format!("{ROOT}/docs/configuration.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/configuration.md is stale: UPDATE=1 cargo test -p tests configuration_md");
}
