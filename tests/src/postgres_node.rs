//! A Postgres server for tests that kill, replicate or configure it, started from the system's
//! programs as an ordinary user.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::{free_port, within};

/// The common `postgresql.conf`. Without fsync, because only processes are killed; with small
/// caches.
const CONFIGURATION: &str = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 200\n\
    shared_buffers = 32MB\nfsync = off\nfull_page_writes = off\ndynamic_shared_memory_type = mmap\n\
    wal_level = replica\nhot_standby = on\nmax_wal_senders = 8\nwal_keep_size = 256MB\ntimezone = 'UTC'\n";

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A server and its folder, both removed when dropped.
#[derive(Debug)]
pub struct PostgresNode {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    password: String,
    query: String,
    server: Option<Child>,
}

impl PostgresNode {
    /// Creates a server without starting it, with additional lines in `postgresql.conf` and only
    /// these lines in `pg_hba.conf`. `None` if Postgres is not installed.
    ///
    /// # Panics
    /// If it can't be created, or Postgres is missing although `REQUIRE_POSTGRES` is set.
    pub async fn new(configuration: &str, access: &str) -> Option<Self> {
        let Some(installation) = sandbox::postgres::system_installation() else {
            assert!(std::env::var_os("REQUIRE_POSTGRES").is_none(), "Postgres should be installed");
            eprintln!("left out: no Postgres on this machine (Debian: apt-get install postgresql)");
            return None;
        };
        let password = Uuid::new_v4().simple().to_string();
        let node = Self::prepare(installation.join("bin"), free_port(), password);
        let secret = node.folder.join("password");
        fs::write(&secret, &node.password).expect("its folder can be written");
        let data = node.data();
        node.run(
            "initdb",
            &[
                "--no-sync",
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                &format!("--pwfile={}", secret.display()),
                &format!("--pgdata={}", data.display()),
            ],
        )
        .await;
        let path = data.join("postgresql.conf");
        let written = fs::read_to_string(&path).expect("initdb wrote it");
        fs::write(&path, format!("{written}\n{CONFIGURATION}{configuration}\n")).expect("it can be written");
        fs::write(data.join("pg_hba.conf"), format!("{access}\n")).expect("it can be written");
        Some(node)
    }

    /// Creates a standby of this server at `port` without starting it.
    ///
    /// # Panics
    /// If it can't be created.
    pub async fn standby(&self, port: u16) -> Self {
        let node = Self::prepare(self.programs.clone(), port, self.password.clone());
        let primary = format!("host=127.0.0.1 port={} user=postgres password={}", self.port, self.password);
        node.run(
            "pg_basebackup",
            &[
                "--checkpoint=fast",
                "--no-sync",
                "--write-recovery-conf",
                "--wal-method=stream",
                &format!("--dbname={primary}"),
                &format!("--pgdata={}", node.data().display()),
            ],
        )
        .await;
        node
    }

    fn prepare(programs: PathBuf, port: u16, password: String) -> Self {
        let folder = std::env::temp_dir().join(format!("quick-checkout-node-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&folder).expect("a folder of its own");
        if let Some(user) = ordinary_user() {
            chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may give it away");
        }
        Self { programs, folder, port, password, query: String::new(), server: None }
    }

    /// Sets the query part of the test's own URLs.
    pub fn set_query(&mut self, query: &str) {
        query.clone_into(&mut self.query);
    }

    /// Writes a file next to the data that only the server can read.
    ///
    /// # Panics
    /// If the file can't be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("its folder can be written");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its own file");
        if let Some(user) = ordinary_user() {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may give it away");
        }
        path
    }

    /// Starts the server and waits until it responds.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start(&mut self) {
        let log = fs::File::create(self.folder.join("log")).expect("its folder can be written");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        self.server = Some(command.spawn().expect("postgres starts"));
        let url = self.url("postgres");
        within(STARTS_WITHIN, "Postgres answers", async || PgConnection::connect(&url).await.is_ok()).await;
    }

    /// Kills the server, like a power loss.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        let postmaster = server.id().expect("it runs");
        // Stop the postmaster, so that it starts no process meanwhile.
        send(postmaster, Signal::SIGSTOP);
        for child in children(postmaster) {
            send(child, Signal::SIGKILL);
        }
        send(postmaster, Signal::SIGKILL);
        let _ = server.wait().await;
        self.free_shared_memory();
    }

    /// Shuts the server down: ends its sessions and sends all WAL to its standbys.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        send(server.id().expect("it runs"), Signal::SIGINT);
        let ended = tokio::time::timeout(STARTS_WITHIN, server.wait()).await;
        ended.expect("it should end").expect("it can be waited for");
    }

    /// The URL of the superuser, for `DATABASE_URL`.
    pub fn url(&self, database: &str) -> String {
        self.url_of("postgres", &self.password, database)
    }

    /// The URL of another role.
    pub fn url_of(&self, role: &str, password: &str, database: &str) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        let host = if self.query.is_empty() { "127.0.0.1" } else { "localhost" };
        format!("postgres://{role}:{password}@{host}:{}/{database}{query}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections as the superuser.
    ///
    /// # Panics
    /// Never: the URL is well-formed.
    pub fn pool(&self, database: &str) -> PgPool {
        PgPoolOptions::new().max_connections(2).connect_lazy(&self.url(database)).expect("a well-formed URL")
    }

    /// Runs statements in the database `postgres`, one by one.
    ///
    /// # Panics
    /// If a statement fails.
    pub async fn sql(&self, statements: &[&str]) {
        let mut conn = PgConnection::connect(&self.url("postgres")).await.expect("Postgres is there");
        for statement in statements {
            let done = sqlx::raw_sql(AssertSqlSafe((*statement).to_owned())).execute(&mut conn).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = ending_with_us(&self.programs.join(program), "QUIT");
        command.env_clear().env("LC_ALL", "C").current_dir(&self.folder).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(user) = ordinary_user() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw()); // Postgres does not run as root
        }
        command
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output();
        let output = tokio::time::timeout(STARTS_WITHIN, output).await.expect("it should end").expect("it starts");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Frees the shared memory of a killed server, which otherwise stays until its next start.
    fn free_shared_memory(&self) {
        let written = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let segment = written.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(segment) = segment {
            let _ = std::process::Command::new("ipcrm").args(["-m", segment]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for PostgresNode {
    fn drop(&mut self) {
        if let Some(postmaster) = self.server.as_ref().and_then(Child::id) {
            let children = children(postmaster);
            send(postmaster, Signal::SIGKILL);
            for child in children {
                send(child, Signal::SIGKILL);
            }
            self.free_shared_memory();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn send(process: u32, signal: Signal) {
    // The process may have ended meanwhile.
    let _ = kill(Pid::from_raw(process.cast_signed()), signal);
}

/// Builds a command whose process gets this signal when the test ends, even if the test is killed.
pub(crate) fn ending_with_us(program: &Path, signal: &str) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv"); // part of util-linux
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", signal]).arg(program);
    command
}

/// The child processes of a process.
fn children(process: u32) -> Vec<u32> {
    let parent = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse::<u32>().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| {
            let status = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status"));
            status.is_ok_and(|status| parent(&status) == Some(process))
        })
        .collect()
}

/// The user that runs Postgres if this process is root.
fn ordinary_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten())
}
