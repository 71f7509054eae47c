//! The preparation of a run, done while the process has one thread and root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::Uid,
};

use sandbox::{
    cargo::{REPOSITORY, cargo, target},
    postgres::become_ordinary_user,
};

/// Debian's path of the library, below the machine's library folder.
const FAKETIME: &str = "faketime/libfaketime.so.1";

/// A folder with everything that a run needs.
#[derive(Debug)]
pub(crate) struct Kit {
    /// The folder, owned by the user that runs Postgres.
    pub(crate) folder: PathBuf,
    /// The small disk for Postgres' data, or the reason why there is none.
    pub(crate) disk: Result<PathBuf, String>,
    /// The library that changes a process' clock, or the reason why there is none.
    pub(crate) faketime: Result<PathBuf, String>,
}

impl Kit {
    /// Builds the product with this program's profile, and gives up root.
    pub(crate) fn pack(folder: &Path, disk_mib: u64) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
        let binaries = build()?;
        let disk = mount_small_disk(&folder.join("disk"), disk_mib);
        let folder = become_ordinary_user(folder)?;
        for name in ["api", "worker"] {
            // The user of Postgres may not read the build folder.
            fs::write(folder.join(name), &binaries[usize::from(name == "worker")])?;
            make_executable(&folder.join(name))?;
        }
        let disk = disk.map(|()| folder.join("disk"));
        let faketime = find_faketime();
        if let (Err(why), Some(_)) = (&faketime, std::env::var_os("REQUIRE_FAKETIME")) {
            bail!("{why}");
        }
        Ok(Self { folder, disk, faketime })
    }

    /// The path of a binary of the product.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Builds the api and the worker, and reads them while the process still may.
fn build() -> Result<[Vec<u8>; 2]> {
    eprintln!("building the product's binaries …");
    let (profile, arguments): (_, &[&str]) = if cfg!(debug_assertions) {
        // The features of a test run, so that nothing is compiled after the tests.
        ("debug", &["build", "--quiet", "--locked", "--workspace", "--bins"])
    } else {
        ("release", &["build", "--quiet", "--locked", "--release", "--package", "api", "--package", "worker"])
    };
    let built = cargo(Path::new(REPOSITORY)).args(arguments).status();
    ensure!(built.context("cargo can't be run")?.success(), "the product can't be built");
    let read = |name: &str| fs::read(target().join(profile).join(name)).with_context(|| format!("there is no {name}"));
    Ok([read("api")?, read("worker")?])
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Mounts a file system of this size in memory, visible only to this process and its children, and
/// removed with them.
fn mount_small_disk(folder: &Path, mib: u64) -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Err("only root may mount a small disk".to_owned());
    }
    let none: Option<&str> = None;
    let mounted = fs::create_dir_all(folder).map_err(|error| error.to_string()).and_then(|()| {
        let own = || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            let size = format!("size={mib}m,mode=755");
            mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
        };
        own().map_err(|error| error.to_string())
    });
    mounted.map_err(|why| format!("a small disk can't be mounted here: {why}"))
}

fn find_faketime() -> Result<PathBuf, String> {
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let places = libraries.chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")]);
    let found = places.map(|folder| folder.join(FAKETIME)).find(|file| file.is_file());
    found.ok_or_else(|| "there is no libfaketime (Debian: apt-get install faketime)".to_owned())
}
