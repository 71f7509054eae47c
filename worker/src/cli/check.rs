//! The result of one check of `worker doctor`.

use std::process::ExitCode;

/// Whether an operator has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Worth knowing, not wrong.
    Warn,
    /// Wrong; `text` says what to do.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The subject of the check.
    pub name: &'static str,
    /// Whether an operator has to act.
    pub status: CheckStatus,
    /// The finding, and the action it needs.
    pub text: String,
}

impl Check {
    pub(super) fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Ok, text: text.into() }
    }

    pub(super) fn warn(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Warn, text: text.into() }
    }

    pub(super) fn fail(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Fail, text: text.into() }
    }
}

/// Prints the checks; the exit code is 1 if one failed.
pub(super) fn print(checks: &[Check]) -> ExitCode {
    for check in checks {
        let mark = match check.status {
            CheckStatus::Ok => "ok     ",
            CheckStatus::Warn => "note   ",
            CheckStatus::Fail => "PROBLEM",
        };
        println!("{mark}  {:12}  {}", check.name, check.text);
    }
    if checks.iter().any(|check| check.status == CheckStatus::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
