//! A malformed variable or argument is reported in one line with its name and what it accepts.

mod variables;

use std::{collections::BTreeSet, process::Output};

use api::ApiConfig;
use common::{
    config::{self, ConfigError, Env},
    db::DatabaseConfig,
    observability::{logs::LogConfig, traces::TraceConfig},
};
use futures_util::{StreamExt, stream};
use tests::processes::{Process, run};
use worker::WorkerConfig;

use variables::{FREE, NONSENSE, VARIABLES};

/// Nobody listens on this port: a process that connects to Postgres waits forever.
const NOWHERE: &str = "postgres://nobody:hush@127.0.0.1:1/none";
/// A configuration in which one variable is malformed.
fn variables(binary: &str, name: &'static str, value: &str) -> Vec<(&'static str, String)> {
    let mut variables = vec![("DATABASE_URL", NOWHERE.to_owned())];
    variables.extend(match binary {
        "api" => [("API_KEY", "hush".to_owned()), ("STRIPE_WEBHOOK_SECRET", "whsec_hush".to_owned())].to_vec(),
        _ => [("STRIPE_SECRET_KEY", "sk_hush".to_owned())].to_vec(),
    });
    if name.starts_with("OTEL_") {
        variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1".to_owned()));
    }
    variables.retain(|(other, _)| *other != name);
    variables.push((name, value.to_owned()));
    variables
}

/// Reads the configuration in the order of the binaries.
fn read(binary: &str, name: &'static str, value: &str) -> Result<(), String> {
    let env = Env::of(variables(binary, name, value));
    let read = || {
        env.read::<LogConfig>()?;
        TraceConfig::from_env(&env, "shop")?;
        match binary {
            "api" => env.read::<ApiConfig>().map(|_| ()),
            _ => env.read::<WorkerConfig>().map(|_| ()),
        }?;
        env.read::<DatabaseConfig>().map(|_| ())
    };
    read().map_err(|error: ConfigError| error.to_string())
}

fn binaries(who: &'static str) -> &'static [&'static str] {
    match who {
        "both" => &["api", "worker"],
        "api" => &["api"],
        _ => &["worker"],
    }
}

fn cases() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    VARIABLES.iter().flat_map(|(who, name, values)| {
        let nonsense = NONSENSE.iter().filter(|_| !FREE.contains(name));
        let values: Vec<&str> = values.iter().chain(nonsense).copied().collect();
        binaries(who)
            .iter()
            .flat_map(move |binary| values.clone().into_iter().map(move |value| (*binary, *name, value)))
    })
}

/// Asserts one line with the variable's name and the accepted values.
fn hold(name: &str, line: &str, what: &str) {
    let is_complete = line.starts_with(&format!("{name} is ")) && line.contains("; it takes ");
    assert!(is_complete && line.lines().count() == 1 && line.len() < 900, "{what}: {line}");
    assert!(!line.contains("hush") && !line.contains("Postgres"), "{what}: {line}");
}

#[test]
fn every_malformed_value_is_reported_in_one_line() {
    let mut taken = Vec::new();
    for (binary, name, value) in cases() {
        let what = format!("{binary} with {name}={value:?}");
        match read(binary, name, value) {
            Ok(()) => taken.push(what),
            Err(line) => hold(name, &line, &what),
        }
    }
    assert!(taken.is_empty(), "{taken:#?}");
    let long = format!("https://{}", "\u{1}".repeat(100_000));
    hold("PUBLIC_URL", &read("api", "PUBLIC_URL", &long).unwrap_err(), "a long value");
}

#[test]
fn blank_values_count_as_not_set() {
    let required = ["DATABASE_URL", "API_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_SECRET_KEY"];
    for (who, name, _) in VARIABLES {
        for (binary, blank) in binaries(who).iter().flat_map(|binary| ["", " ", "\t"].map(|blank| (binary, blank))) {
            let outcome = read(binary, name, blank);
            if required.contains(name) {
                let line = outcome.expect_err("it is required");
                assert!(line.starts_with(&format!("{name} is not set; it takes ")), "{line}");
            } else {
                assert_eq!(outcome, Ok(()), "{binary} with a blank {name}");
            }
        }
    }
}

/// Only secrets can be in files, and only their values are left out of messages. (An address with an
/// `@` may hold a password.)
#[test]
fn the_list_of_secrets_is_complete() {
    let mut seen = BTreeSet::from(["PGPASSWORD"]); // accepts any text
    for (binary, name, value) in cases().filter(|(_, _, value)| !value.contains('@')) {
        let line = read(binary, name, value).unwrap_err();
        if line.starts_with(&format!("{name} is malformed;")) {
            seen.insert(name);
        }
    }
    assert_eq!(seen, BTreeSet::from(config::SECRETS));
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_from_its_file_is_reported() {
    for (binary, name) in [("api", "API_KEY"), ("worker", "STRIPE_SECRET_KEY"), ("worker", "DATABASE_URL")] {
        let file = format!("{name}{}", config::FILE);
        let mut variables = variables(binary, name, "hush");
        variables.push((&file, "/nowhere".to_owned()));
        let both = said(&run(binary, &[], variables.clone()).await);
        hold(&file, both.strip_prefix(&format!("{binary}: ")).unwrap_or(&both), "both are set");
        variables.retain(|(other, _)| *other != name);
        let missing = said(&run(binary, &[], variables).await);
        hold(&file, missing.strip_prefix(&format!("{binary}: ")).unwrap_or(&missing), "no such file");
        assert!(missing.contains("/nowhere") && !missing.contains("remove"), "{missing}");
    }
}

/// The binaries report one malformed value of each variable before they query Postgres.
#[tokio::test]
async fn the_binaries_exit_with_that_line() {
    let mut seen = BTreeSet::new();
    let one_each = cases().filter(move |(binary, name, _)| seen.insert((*binary, *name)));
    let runs = stream::iter(one_each).map(|(binary, name, value)| async move {
        (binary, name, value, run(binary, &[], variables(binary, name, value)).await)
    });
    let runs: Vec<_> = runs.buffer_unordered(4).collect().await;
    assert!(runs.len() > 50, "{}", runs.len());
    for (binary, name, value, output) in runs {
        let said = said(&output);
        let what = format!("{binary} with {name}={value:?}");
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        let line = said.strip_prefix(&format!("{binary}: ")).unwrap_or_else(|| panic!("{what}: {said}"));
        hold(name, line, &what);
    }
}

/// Bytes that are no text end neither binary with a panic.
#[cfg(unix)]
#[tokio::test]
async fn invalid_utf8_is_reported_like_other_malformed_values() {
    use std::os::unix::ffi::OsStringExt;
    for (binary, name) in [("api", "BIND_ADDR"), ("api", "STRIPE_WEBHOOK_SECRET"), ("worker", "DATABASE_URL")] {
        let path = tests::processes::program(binary).await;
        let output = tokio::process::Command::new(path)
            .env_clear()
            .envs(variables(binary, name, ""))
            .env(name, std::ffi::OsString::from_vec(b"postgres://\xff\xfe".to_vec()))
            .env("UNRELATED", std::ffi::OsString::from_vec(vec![0xff]))
            .current_dir(std::env::temp_dir())
            .output()
            .await
            .unwrap();
        let said = said(&output);
        hold(name, said.strip_prefix(&format!("{binary}: ")).unwrap_or(&said), binary);
    }
}

#[tokio::test]
async fn a_malformed_env_file_is_reported_without_its_secrets() {
    let folder = std::env::temp_dir().join(format!("env-file-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(".env"), "API_KEY=hush\nthis is hush and no assignment\nBIND_ADDR=127.0.0.1:0\n")
        .unwrap();
    for binary in ["api", "worker"] {
        let path = tests::processes::program(binary).await;
        let output = tokio::process::Command::new(path).env_clear().current_dir(&folder).output().await.unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with(&format!("{binary}: the .env file can't be read")) && !said.contains("hush"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// The tests cover every variable of each binary.
#[test]
fn no_variable_is_left_out() {
    for (binary, command) in [("api", api::variables()), ("worker", worker::variables())] {
        let read: BTreeSet<&str> = config::variables(&command).map(|variable| variable.name).collect();
        let cases = VARIABLES.iter().filter(|(who, ..)| binaries(who).contains(&binary));
        let mut tried: BTreeSet<&str> = cases.map(|(_, name, _)| *name).collect();
        tried.insert("OTEL_SERVICE_NAME"); // accepts any text
        assert_eq!(read, tried, "{binary}");
    }
}

#[tokio::test]
async fn help_lists_every_variable() {
    for (binary, command) in [("api", api::variables()), ("worker", worker::variables())] {
        let help = run(binary, &["--help"], [("STRIPE_SECRET_KEY", "sk_hush".to_owned())]).await;
        let help = String::from_utf8(help.stdout).unwrap();
        for variable in config::variables(&command) {
            assert!(help.contains(&format!("\n  {}", variable.name)) && !help.contains("hush"), "{binary}: {help}");
        }
    }
}

/// `cargo run -- --help`
#[tokio::test]
async fn the_sandbox_describes_itself_instead_of_starting() {
    let help = run("sandbox", &["--help"], []).await;
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success() && text.contains("Usage: sandbox") && text.contains("SANDBOX_STRIPE_ADDR"), "{text}");
    let typo = run("sandbox", &["--port=80"], []).await;
    assert!(!typo.status.success() && said(&typo).contains("unexpected argument '--port'"), "{}", said(&typo));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}

#[tokio::test]
async fn arguments_are_reported_by_name_before_postgres_is_queried() {
    let add = ["keys", "add", "shop", "--scope", "read", "--expires"];
    let long = "x".repeat(65);
    let mut cases: Vec<(&str, Vec<&str>, &str, &str)> = Vec::new();
    for end in [
        "1ns",
        "999ms",
        "0s",
        "-1d",
        "-1",
        "101years",
        "99999999999999999999d",
        "soon",
        "",
        " ",
        "2020-01-01",
        "0000-01-01",
        "+262142-01-01",
        "+10000-01-01T00:00:00Z",
        "2099-12-31T23:59:60Z",
        "9999-12-31T23:59:59-00:01",
        "2024-02-30",
    ] {
        cases.push(("api", [&add[..], &[end]].concat(), "--expires", "it takes a d"));
    }
    for name in ["", " ", "a b", "a\nb", "ö", "a/b", &long] {
        cases.push(("api", vec!["keys", "add", name, "--scope", "read"], "<NAME>", "a name is 1 to 64 letters"));
        cases.push(("api", vec!["keys", "revoke", name], "<NAME>", "a name is 1 to 64 letters"));
    }
    for scope in ["", "admin", "read,", "READ", "read write"] {
        cases.push((
            "api",
            vec!["keys", "add", "x", "--scope", scope],
            "--scope",
            "there are read, write, operator and support",
        ));
    }
    cases.push(("api", vec!["keys", "add", "x"], "--scope", ""));
    for queue in ["", "mail", "Expiry"] {
        cases.push(("worker", vec!["jobs", "--queue", queue], "--queue", "there are payment-links"));
        cases.push(("worker", vec!["pause", queue], "<QUEUE>", "there are payment-links"));
        cases.push(("worker", vec!["resume", queue], "<QUEUE>", "there are payment-links"));
        cases.push(("worker", vec!["retry", "--queue", queue], "--queue", "there are payment-links"));
    }
    for state in ["", "lost", "Dead"] {
        cases.push(("worker", vec!["jobs", "--state", state], "--state", "there are scheduled"));
    }
    for limit in ["", "0", "1001", "x", "99999999999999999999"] {
        cases.push(("worker", vec!["jobs", "--limit", limit], "--limit", ""));
    }
    for id in ["", "x", "00000000-0000-0000-0000-00000000000"] {
        cases.push(("worker", vec!["jobs", id], "[ID]", "a job's id"));
        cases.push(("worker", vec!["retry", id], "[ID]", "a job's id"));
        cases.push(("worker", vec!["cancel", id], "<ID>", "a job's id"));
    }
    let runs = stream::iter(cases).map(|(binary, arguments, names, accepts)| async move {
        let output = run(binary, &arguments, [("DATABASE_URL", NOWHERE.to_owned())]).await;
        let said = said(&output);
        let what = format!("{binary} {arguments:?}: {said}");
        assert!(!output.status.success(), "{what}");
        let line = said.lines().find(|line| line.contains(names) && line.contains(accepts));
        assert!(line.is_some() && !said.contains("Postgres"), "{what}");
    });
    runs.buffer_unordered(4).collect::<()>().await;
}

/// Managed Postgres services write such parameters into the addresses that they hand out.
#[tokio::test]
async fn unknown_connection_parameters_are_ignored_and_their_values_are_not_logged() {
    let shop = crate::processes::Shop::open().await;
    let mut variables = shop.api_variables();
    let (_, url) = variables.iter_mut().find(|(name, _)| *name == "DATABASE_URL").unwrap();
    let separator = if url.contains('?') { '&' } else { '?' };
    url.push(separator);
    url.push_str("channel_binding=require&sslpassword=OF_NOBODY");
    variables.push(("RUST_LOG", "debug".to_owned()));
    let mut api = Process::start("api", variables).await;
    let mut lines = vec![api.says("sslpassword").await];
    lines.push(api.says("api is listening").await);
    lines.extend(api.said());
    assert!(!lines.concat().contains("OF_NOBODY"), "{lines:#?}");
    assert_eq!(shop.http.get(shop.url("/readyz")).send().await.unwrap().status(), 200);
}
