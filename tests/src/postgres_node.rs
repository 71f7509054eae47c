//! A Postgres server of its own, for a test that breaks, replicates or configures
//! it: started from the system's programs, as an ordinary user, killed for real.

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

/// What every node has in its `postgresql.conf`. Killed processes need no fsync; nothing is to be left in memory.
const CONFIGURATION: &str = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 200\n\
    shared_buffers = 32MB\nfsync = off\nfull_page_writes = off\ndynamic_shared_memory_type = mmap\n\
    wal_level = replica\nhot_standby = on\nmax_wal_senders = 8\nwal_keep_size = 256MB\ntimezone = 'UTC'\n";

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A server and its folder; both are gone with it.
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
    /// An empty one that does not run yet, with these lines more in `postgresql.conf` and these alone in
    /// `pg_hba.conf`. `None` where this machine has no Postgres installed.
    ///
    /// # Panics
    /// If it can't be made, or there is none and `REQUIRE_POSTGRES` is set, as the gate does.
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

    /// A standby of this server, at `port`, that does not run yet.
    ///
    /// # Panics
    /// If it can't be made.
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

    /// Connections of the test itself, and the addresses it gives, have this after the `?`.
    pub fn set_query(&mut self, query: &str) {
        query.clone_into(&mut self.query);
    }

    /// Writes a file that only the server reads, beside its data.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("its folder can be written");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its own file");
        if let Some(user) = ordinary_user() {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may give it away");
        }
        path
    }

    /// Starts it and waits until it answers.
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

    /// Ends it without a word, as a machine that loses its power does.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        let postmaster = server.id().expect("it runs");
        // Nothing is started while the list is made.
        send(postmaster, Signal::SIGSTOP);
        for child in children(postmaster) {
            send(child, Signal::SIGKILL);
        }
        send(postmaster, Signal::SIGKILL);
        let _ = server.wait().await;
        self.free_shared_memory();
    }

    /// Ends it in order: sessions are ended, what was written is handed to standbys that follow.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        send(server.id().expect("it runs"), Signal::SIGINT);
        let ended = tokio::time::timeout(STARTS_WITHIN, server.wait()).await;
        ended.expect("it should end").expect("it can be waited for");
    }

    /// Its address, as its superuser, for `DATABASE_URL`.
    pub fn url(&self, database: &str) -> String {
        self.url_of("postgres", &self.password, database)
    }

    /// Its address as another role.
    pub fn url_of(&self, role: &str, password: &str, database: &str) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        let host = if self.query.is_empty() { "127.0.0.1" } else { "localhost" };
        format!("postgres://{role}:{password}@{host}:{}/{database}{query}", self.port)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections as its superuser.
    ///
    /// # Panics
    /// Never: its address is well-formed.
    pub fn pool(&self, database: &str) -> PgPool {
        PgPoolOptions::new().max_connections(2).connect_lazy(&self.url(database)).expect("a well-formed URL")
    }

    /// Runs statements in the database `postgres`, each by itself.
    ///
    /// # Panics
    /// If one is refused.
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
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw()); // Postgres refuses to run as root
        }
        command
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output();
        let output = tokio::time::timeout(STARTS_WITHIN, output).await.expect("it should end").expect("it starts");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A server that is killed leaves a segment behind, which nothing else frees before the next start.
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
    // One that has ended meanwhile needs none.
    let _ = kill(Pid::from_raw(process.cast_signed()), signal);
}

/// A program that is sent this signal when the test ends, even if that is killed and drops nothing.
pub(crate) fn ending_with_us(program: &Path, signal: &str) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv"); // util-linux
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", signal]).arg(program);
    command
}

/// The processes that this one started.
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

/// Who runs Postgres where this process is root.
fn ordinary_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten())
}
