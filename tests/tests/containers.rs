//! `docker-compose.yml` and `.env.example` fit the variables of the programs. `.ci/image` runs them.

use std::collections::{BTreeMap, BTreeSet};

use common::config::{self, Variable};

const COMPOSE: &str = include_str!("../../docker-compose.yml");
const EXAMPLE: &str = include_str!("../../.env.example");

/// Variables with the same value in every container: the addresses within it.
const FIXED: [&str; 3] = ["BIND_ADDR", "METRICS_ADDR", "HEALTH_ADDR"];

/// The lines below `title`, up to the next one with as little indentation.
fn below(lines: &[&'static str], title: &str) -> Vec<&'static str> {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let start = lines.iter().position(|line| line.split(" &").next() == Some(title));
    let start = start.unwrap_or_else(|| panic!("docker-compose.yml has no {title}"));
    let is_below = |line: &&&str| line.is_empty() || indentation(line) > indentation(lines[start]);
    lines[start + 1..].iter().take_while(is_below).copied().collect()
}

/// The variables of a container and their values.
fn environment(service: &str) -> BTreeMap<&'static str, &'static str> {
    let all: Vec<&str> = COMPOSE.lines().collect();
    let own = below(&below(&all, &format!("  {service}:")), "    environment:");
    let pairs =
        [below(&all, "x-environment:"), own].concat().into_iter().filter_map(|line| line.trim().split_once(':'));
    let pairs = pairs.map(|(name, value)| (name, value.split(" #").next().unwrap_or_default().trim()));
    pairs.filter(|(name, _)| *name != "<<" && !name.starts_with('#')).collect()
}

#[test]
fn every_variable_reaches_its_container() {
    for (service, command) in [("api", api::variables()), ("worker", worker::variables())] {
        let variables = environment(service);
        let known: BTreeSet<&str> = config::variables(&command).map(|variable| variable.name).collect();
        let given: BTreeSet<&str> = variables.keys().map(|name| name.trim_end_matches(config::FILE)).collect();
        assert_eq!(given, known, "the environment of {service}");
        for (name, value) in variables {
            let passes_on = value.is_empty() || value.starts_with(&format!("${{{name}:"));
            let is_secret = value.starts_with("/run/secrets/");
            assert!(passes_on || is_secret || FIXED.contains(&name), "{service} has a {name} of its own: {value}");
        }
    }
}

#[test]
fn the_example_has_known_variables_and_no_secret() {
    let (api, worker) = (api::variables(), worker::variables());
    let known: Vec<Variable<'_>> = config::variables(&api).chain(config::variables(&worker)).collect();
    let mut blank = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let Some((name, value)) = line.trim_start_matches("# ").split_once('=') else { continue };
        if name.contains(' ') {
            continue;
        }
        assert!(name == "POSTGRES_PASSWORD" || known.iter().any(|known| known.name == name), ".env.example: {name}");
        if !line.starts_with('#') {
            assert_eq!(value, "", "{name} must be filled in");
            blank.insert(name);
        }
    }
    let required = known.iter().filter(|known| known.default == "required" && known.name != "DATABASE_URL");
    let required: BTreeSet<&str> = required.map(|known| known.name).chain(["POSTGRES_PASSWORD"]).collect();
    assert_eq!(blank, required);
}
