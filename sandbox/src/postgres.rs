//! A private Postgres: on the system's binaries where there are any, else on
//! ones that are downloaded once.

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};
use postgresql_embedded::{PostgreSQL, Settings};

/// How sure a write must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives a crash of the machine.
    Full,
    /// For tests, whose data nobody wants tomorrow.
    None,
}

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct PrivatePostgres {
    server: PostgreSQL,
    /// Nobody else may use this folder meanwhile.
    _lock: File,
}

impl PrivatePostgres {
    /// Starts a server whose data is in `folder`, which it makes if need be.
    ///
    /// # Errors
    /// If the folder is in use or can't be used, or Postgres does not start.
    pub async fn start(folder: &Path, durability: Durability) -> Result<Self> {
        Self::start_with(folder, durability, &[]).await
    }

    /// The same, with settings besides.
    ///
    /// # Errors
    /// As [`PrivatePostgres::start`].
    pub async fn start_with(folder: &Path, durability: Durability, more: &[(&str, &str)]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
        let lock = lock(folder)?;
        crate::choose_cryptography(); // for the download
        let password = remember(&folder.join("password"), random_word)?;
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        let durable = durability == Durability::Full;
        let mut settings = Settings {
            host: "127.0.0.1".to_owned(),
            data_dir: folder.join("data"),
            password_file: folder.join("password"),
            password,
            temporary: false,
            timeout: Some(Duration::from_secs(120)),
            configuration: HashMap::from([
                ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
                ("unix_socket_directories".to_owned(), String::new()),
                ("max_connections".to_owned(), "200".to_owned()),
                // The library starts every server with -F; this takes it back.
                ("fsync".to_owned(), switch(durable)),
                ("full_page_writes".to_owned(), switch(durable)),
                ("synchronous_commit".to_owned(), switch(durable)),
            ]),
            ..Settings::default()
        };
        match system_installation() {
            Some(installation) => {
                settings.installation_dir = installation;
                settings.trust_installation_dir = true;
            }
            None => settings.installation_dir = folder.join("postgres"),
        }
        settings.configuration.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut server = PostgreSQL::new(settings);
        server
            .setup()
            .await
            .context("Postgres can't be set up; install it (Debian: postgresql) or set DATABASE_URL")?;
        if folder.join("data/postmaster.pid").exists() {
            // Left running by a sandbox that was killed, or a stale file: both end with a stop.
            let _ = server.stop().await;
        }
        server.start().await.with_context(|| {
            format!("Postgres does not start; its log is {}", folder.join("data/start.log").display())
        })?;
        Ok(Self { server, _lock: lock })
    }

    /// Where its data is.
    pub fn data_folder(&self) -> &Path {
        &self.server.settings().data_dir
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.server.settings().port
    }

    /// Starts it again on the same data, after it ended by itself or was killed.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        Ok(self.server.start().await?)
    }

    /// The address of a database on it.
    pub fn url(&self, database: &str) -> String {
        self.server.settings().url(database)
    }

    /// Makes the database unless it exists.
    ///
    /// # Errors
    /// If Postgres refuses.
    pub async fn ensure_database(&self, database: &str) -> Result<()> {
        if !self.server.database_exists(database).await? {
            self.server.create_database(database).await?;
        }
        Ok(())
    }

    /// Stops it, once everybody was told to go.
    ///
    /// # Errors
    /// If it does not stop.
    pub async fn stop(self) -> Result<()> {
        Ok(self.server.stop().await?)
    }
}

/// Postgres refuses to run as root. If this process is root, it becomes an
/// ordinary user, to whom `folder` is given; where that user can't reach it, a
/// folder elsewhere is used and `folder` leads there. Call it before any thread starts.
///
/// # Errors
/// If there is no such user, or the folder can't be given.
pub fn become_ordinary_user(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    if !Uid::effective().is_root() {
        return Ok(folder);
    }
    let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    let Some(user) = user else { bail!("Postgres refuses to run as root, and there is no user postgres or nobody") };
    let folder = if is_reachable(&folder) { folder } else { elsewhere(&folder)? };
    give_to(&folder, user.uid, user.gid)?;
    setgroups(&[user.gid]).context("can't give up root's groups")?;
    setgid(user.gid).context("can't give up root's group")?;
    setuid(user.uid).context("can't give up root")?;
    Ok(folder)
}

/// Whether every folder above lets anybody pass.
fn is_reachable(folder: &Path) -> bool {
    folder.ancestors().skip(1).all(|above| fs::metadata(above).is_ok_and(|data| data.permissions().mode() & 0o001 != 0))
}

/// A folder of the same name under /var/tmp, named by where it stands in for.
fn elsewhere(folder: &Path) -> Result<PathBuf> {
    let name: String =
        folder.display().to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let elsewhere = Path::new("/var/tmp").join(format!("quick-checkout-tracker{name}"));
    fs::create_dir_all(&elsewhere).with_context(|| format!("can't make the folder {}", elsewhere.display()))?;
    // Leads there from now on, unless something is in it already.
    if fs::remove_dir(folder).is_ok() {
        symlink(&elsewhere, folder).with_context(|| format!("can't make the link {}", folder.display()))?;
    }
    Ok(elsewhere)
}

fn give_to(path: &Path, user: Uid, group: Gid) -> Result<()> {
    chown(path, Some(user.as_raw()), Some(group.as_raw()))
        .with_context(|| format!("can't give {} to the user that runs Postgres", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_type()?.is_symlink() {
                give_to(&entry.path(), user, group)?;
            }
        }
    }
    Ok(())
}

/// The newest Postgres on this machine that is new enough.
pub fn system_installation() -> Option<PathBuf> {
    const OLDEST: u32 = 14;
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok().filter(|version| *version >= OLDEST);
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut installations: Vec<(u32, PathBuf)> =
        debian.filter_map(|path| Some((version(&path)?, path))).filter(|(_, path)| is_complete(path)).collect();
    installations.sort();
    installations.pop().map(|(_, path)| path).or_else(|| {
        // Red Hat, Homebrew and others have one version, beside everything else.
        ["/usr", "/usr/local", "/opt/homebrew"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| is_complete(path) && is_recent(path))
    })
}

fn is_complete(installation: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|program| installation.join("bin").join(program).exists())
}

fn is_recent(installation: &Path) -> bool {
    let output = std::process::Command::new(installation.join("bin/postgres")).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let major = text.split_whitespace().nth(2).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major >= 14)
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another process uses {}; stop it first, or set DATABASE_URL", folder.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("can't lock {}", path.display())),
    }
}

/// A value that is made once and kept in a file only its owner reads.
///
/// # Errors
/// If the file can't be read or written.
pub fn remember(path: &Path, make: impl Fn() -> String) -> Result<String> {
    if let Ok(known) = fs::read_to_string(path) {
        return Ok(known.trim().to_owned());
    }
    let made = make();
    fs::write(path, &made).with_context(|| format!("can't write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(made)
}

/// 128 random bits in hexadecimal.
pub fn random_word() -> String {
    format!("{:032x}", rand::random::<u128>())
}
