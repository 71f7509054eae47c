//! The files that a run needs, collected while this process may write to the repository. Later it
//! becomes a user who may not even read it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use sandbox::cargo::{REPOSITORY, cargo, target};

use crate::rows::Part;

/// The programs and files, in one folder.
#[derive(Debug)]
pub(crate) struct Kit {
    /// The folder, with `api`, `worker`, `bench`, `wrk/` and `peers/`.
    pub(crate) folder: PathBuf,
    wrk: Option<PathBuf>,
    pgbench: Option<PathBuf>,
}

impl Kit {
    /// Checks that every tool is installed, builds the product and fetches the peers.
    pub(crate) fn pack(folder: &Path, parts: &[Part]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let needs = |those: &[Part]| parts.iter().any(|part| those.contains(part));
        let with_node = needs(&[Part::Queue, Part::Fastify, Part::Start]);
        let kit = Self { wrk: program("wrk"), pgbench: pgbench(), folder };
        let loaded = [Part::Post, Part::Get, Part::List, Part::Pages, Part::Analytics, Part::Fastify];
        if needs(&loaded) {
            kit.wrk()?;
        }
        if needs(&[Part::Post, Part::Get, Part::List, Part::Webhooks]) {
            kit.pgbench()?;
        }
        kit.pack_product()?;
        for name in ["wrk", "peers"] {
            copy(&Path::new(REPOSITORY).join("bench").join(name), &kit.folder.join(name))?;
        }
        if with_node {
            ensure!(program("npm").is_some(), "there is no npm: install Node (Debian: apt-get install nodejs npm)");
            let modules = install_peers()?;
            copy(&modules, &kit.folder.join("peers/node_modules"))?;
        }
        Ok(kit)
    }

    pub(crate) fn wrk(&self) -> Result<&Path> {
        self.wrk.as_deref().context("there is no wrk: install it (Debian: apt-get install wrk)")
    }

    pub(crate) fn pgbench(&self) -> Result<&Path> {
        self.pgbench.as_deref().context("there is no pgbench: install Postgres (Debian: apt-get install postgresql)")
    }

    /// The Node version in `package.json`, so that every machine measures the same one.
    pub(crate) fn node(&self) -> PathBuf {
        self.folder.join("peers/node_modules/.bin/node")
    }

    /// Builds the release binaries as the README describes, if they are missing or stale.
    fn pack_product(&self) -> Result<()> {
        eprintln!("building the product's release binaries …");
        let mut build = cargo(Path::new(REPOSITORY));
        build.args(["build", "--release", "--locked", "--package", "api", "--package", "worker"]);
        ensure!(build.status().context("cargo can't be run")?.success(), "the product can't be built");
        for name in ["api", "worker"] {
            fs::copy(target().join("release").join(name), self.folder.join(name))?;
        }
        fs::copy(std::env::current_exe()?, self.folder.join("bench"))?;
        Ok(())
    }
}

/// Runs `npm ci` in `target/` unless this was done before; returns `node_modules`.
fn install_peers() -> Result<PathBuf> {
    let (from, to) = (Path::new(REPOSITORY).join("bench/peers"), Path::new(REPOSITORY).join("target/bench-peers"));
    let done = to.join("done");
    let lock = fs::read(from.join("package-lock.json"))?;
    if fs::read(&done).is_ok_and(|before| before == lock) {
        return Ok(to.join("node_modules"));
    }
    eprintln!("fetching the peers with npm …");
    fs::create_dir_all(&to)?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(from.join(name), to.join(name))?;
    }
    let status = Command::new("npm")
        .args(["ci", "--no-fund", "--no-audit", "--loglevel", "error"])
        .current_dir(&to)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("npm can't be run")?;
    ensure!(status.success(), "npm can't fetch the peers");
    let node = Command::new(to.join("node_modules/.bin/node")).arg("--version").stdout(Stdio::null()).status();
    ensure!(node.is_ok_and(|status| status.success()), "npm fetched no Node: does it run no install scripts here?");
    fs::write(done, lock)?;
    Ok(to.join("node_modules"))
}

/// The path of a program, if it is installed.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Finds pgbench beside the server; the one on Debian's path is a slow wrapper.
fn pgbench() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<(u32, PathBuf)> = debian
        .filter_map(|path| Some((version(&path)?, path.join("bin/pgbench"))))
        .filter(|(_, file)| file.is_file())
        .collect();
    found.sort();
    found.pop().map(|(_, file)| file).or_else(|| program("pgbench"))
}

/// Copies a folder; links stay links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg("--").args([from, to]).stdin(Stdio::null()).status()?;
    if !status.success() {
        bail!("{} can't be copied to {}", from.display(), to.display());
    }
    Ok(())
}
