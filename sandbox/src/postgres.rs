//! A private Postgres server. Uses the system's binaries if there are any, else downloads them
//! once.

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

/// The durability of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Commits survive a crash of the machine.
    Full,
    /// No fsync; for tests.
    None,
}

/// A running server, which is stopped when dropped.
#[derive(Debug)]
pub struct PrivatePostgres {
    server: PostgreSQL,
    /// Keeps other processes from using the folder.
    _lock: File,
}

impl PrivatePostgres {
    /// Starts a server with its data in `folder`, which is created if necessary.
    ///
    /// # Errors
    /// If the folder is in use or not accessible, or Postgres does not start.
    pub async fn start(folder: &Path, durability: Durability) -> Result<Self> {
        Self::start_with(folder, durability, &[]).await
    }

    /// Like [`PrivatePostgres::start`], with additional settings.
    ///
    /// # Errors
    /// Same errors as [`PrivatePostgres::start`].
    pub async fn start_with(folder: &Path, durability: Durability, more: &[(&str, &str)]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
        let lock = lock(folder)?;
        crate::choose_cryptography(); // needed by the download
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
                // The library passes -F to every server, which disables fsync; this overrides it.
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
            // The server of a killed sandbox, or a stale file: stopping removes both.
            let _ = server.stop().await;
        }
        server.start().await.with_context(|| {
            format!("Postgres does not start; its log is {}", folder.join("data/start.log").display())
        })?;
        Ok(Self { server, _lock: lock })
    }

    /// The data directory.
    pub fn data_folder(&self) -> &Path {
        &self.server.settings().data_dir
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.server.settings().port
    }

    /// Starts the server again on the same data, after it ended or was killed.
    ///
    /// # Errors
    /// If the server does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        Ok(self.server.start().await?)
    }

    /// The connection URL of a database.
    pub fn url(&self, database: &str) -> String {
        self.server.settings().url(database)
    }

    /// Creates the database unless it exists.
    ///
    /// # Errors
    /// If the statement fails.
    pub async fn ensure_database(&self, database: &str) -> Result<()> {
        if !self.server.database_exists(database).await? {
            self.server.create_database(database).await?;
        }
        Ok(())
    }

    /// Stops the server, and disconnects its clients.
    ///
    /// # Errors
    /// If the server does not stop.
    pub async fn stop(self) -> Result<()> {
        Ok(self.server.stop().await?)
    }
}

/// Drops root privileges, because Postgres refuses to run as root: this process becomes an ordinary
/// user, who gets `folder`. If that user can't reach the folder, another one is used, and `folder`
/// becomes a link to it. Must be called before any thread starts.
///
/// # Errors
/// If there is no such user, or the folder's owner can't be changed.
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

/// Whether all users may traverse the parent folders.
fn is_reachable(folder: &Path) -> bool {
    folder.ancestors().skip(1).all(|above| fs::metadata(above).is_ok_and(|data| data.permissions().mode() & 0o001 != 0))
}

/// Creates a folder in /var/tmp whose name contains the path of `folder`.
fn elsewhere(folder: &Path) -> Result<PathBuf> {
    let name: String =
        folder.display().to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let elsewhere = Path::new("/var/tmp").join(format!("quick-checkout-tracker{name}"));
    fs::create_dir_all(&elsewhere).with_context(|| format!("can't make the folder {}", elsewhere.display()))?;
    // Link to it from `folder`, unless that contains files already.
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

/// The newest installed Postgres, if it is version 14 or later.
pub fn system_installation() -> Option<PathBuf> {
    const OLDEST: u32 = 14;
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok().filter(|version| *version >= OLDEST);
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut installations: Vec<(u32, PathBuf)> =
        debian.filter_map(|path| Some((version(&path)?, path))).filter(|(_, path)| is_complete(path)).collect();
    installations.sort();
    installations.pop().map(|(_, path)| path).or_else(|| {
        // Red Hat, Homebrew and others install one version in a common directory.
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

/// Returns the value stored in the file; on the first call creates it, readable only by its owner.
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
