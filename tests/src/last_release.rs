//! The previous release, built from the history of this repository.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sandbox::cargo::{REPOSITORY, cargo, target};

/// The release named in `tests/last_release`.
#[derive(Debug, Clone)]
pub struct LastRelease {
    /// Its commit.
    pub commit: String,
    /// The version of its newest migration.
    pub migration: i64,
}

impl LastRelease {
    /// Reads `tests/last_release`.
    ///
    /// # Panics
    /// If the file is malformed.
    pub fn get() -> Self {
        let text = include_str!("../last_release");
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let found = lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned());
            found.unwrap_or_else(|| panic!("tests/last_release has no {name}"))
        };
        let migration = value("migration").parse().expect("a migration's version is a number");
        Self { commit: value("commit"), migration }
    }

    /// Whether this clone contains the commit; prints what to do if not.
    pub fn is_in_history(&self) -> bool {
        let commit = format!("{}^{{commit}}", self.commit);
        let there = git(["cat-file", "-e", &commit]).status.success();
        if !there {
            eprintln!("the last release, {}, is not in this clone: git fetch --unshallow", self.commit);
        }
        there
    }

    /// The versions of its migrations.
    ///
    /// # Panics
    /// If the clone does not contain the commit.
    pub fn migrations(&self) -> Vec<i64> {
        let listed = git(["ls-tree", "--name-only", &self.commit, "migrations/"]);
        assert!(listed.status.success(), "git ls-tree {}", self.commit);
        let names = String::from_utf8(listed.stdout).expect("names are UTF-8");
        let version = |name: &str| Path::new(name).file_name()?.to_str()?.split_once('_')?.0.parse().ok();
        names.lines().filter_map(version).collect()
    }

    /// Builds its api and worker in their own folder; takes minutes the first time.
    ///
    /// # Panics
    /// If the clone does not contain the commit, or the build fails.
    pub fn build(&self) -> Binaries {
        assert!(self.is_in_history(), "the last release should be in this clone: git fetch --unshallow");
        let folder = target().join("last-release").join(&self.commit);
        let source = folder.join("source");
        if !source.exists() {
            // Use a temporary name until the folder is complete.
            let (tar, partly) = (folder.join("source.tar"), folder.join("partly"));
            let _ = fs::remove_dir_all(&partly);
            fs::create_dir_all(&partly).expect("a folder for the last release");
            let archived = git([OsStr::new("archive"), "-o".as_ref(), tar.as_ref(), self.commit.as_ref()]);
            assert!(archived.status.success(), "git archive {}", self.commit);
            let unpacked = Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&partly).status();
            assert!(unpacked.expect("tar is there").success(), "the last release can be unpacked");
            fs::rename(&partly, &source).expect("it is on the same disk");
        }
        eprintln!("building the last release, {}, in {}", self.commit, folder.display());
        let built = cargo(&source)
            .args(["build", "--locked", "--package", "api", "--package", "worker", "--target-dir"])
            .arg(folder.join("target"))
            .status();
        assert!(built.expect("cargo is there").success(), "the last release should build");
        Binaries(folder.join("target/debug"))
    }
}

/// The folder of its programs.
#[derive(Debug, Clone)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Builds the last release; `None` unless requested, because it takes minutes.
    ///
    /// # Panics
    /// If `REQUIRE_LAST_RELEASE` requests it and the build fails.
    pub async fn of_last_release() -> Option<Self> {
        if std::env::var_os("REQUIRE_LAST_RELEASE").is_none() {
            eprintln!("left out: building the last release takes minutes (REQUIRE_LAST_RELEASE=1)");
            return None;
        }
        let built = tokio::task::spawn_blocking(|| LastRelease::get().build()).await;
        Some(built.expect("the last release builds"))
    }

    /// The path of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn git<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("git").arg("-C").arg(REPOSITORY).args(arguments).stderr(Stdio::null()).output().expect("git is there")
}
