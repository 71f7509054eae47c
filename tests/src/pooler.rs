//! A real PgBouncer in transaction mode in front of the test's Postgres.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tokio::net::TcpStream;

use crate::{TestDatabase, eventually, free_address};

/// A PgBouncer for one test.
#[derive(Debug)]
pub struct Pooler {
    /// The address it listens on.
    pub address: SocketAddr,
    _process: tokio::process::Child,
    folder: PathBuf,
}

impl Pooler {
    /// Starts PgBouncer; `None` if it is not installed.
    ///
    /// # Panics
    /// If it does not start, or is missing although `REQUIRE_PGBOUNCER` is set.
    pub async fn start(database: &TestDatabase) -> Option<Self> {
        let Some(program) = program() else {
            assert!(std::env::var_os("REQUIRE_PGBOUNCER").is_none(), "PgBouncer should be installed");
            eprintln!("left out: no pgbouncer on this machine (Debian: apt-get install pgbouncer)");
            return None;
        };
        let address = free_address();
        let folder = std::env::temp_dir().join(format!("quick-checkout-pgbouncer-{}", address.port()));
        std::fs::create_dir_all(&folder).expect("a folder of its own");
        let configuration = folder.join("pgbouncer.ini");
        std::fs::write(&configuration, configure(database, address)).expect("its folder can be written");
        let mut command = tokio::process::Command::new(program);
        command.arg("--quiet").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        if nix::unistd::Uid::effective().is_root() {
            command.args(["--user", "nobody"]); // PgBouncer does not run as root
        }
        let process = command.spawn().expect("pgbouncer starts");
        eventually("PgBouncer answers", async || TcpStream::connect(address).await.is_ok()).await;
        Some(Self { address, _process: process, folder })
    }

    /// The URL of the database through the pooler, for `DATABASE_URL`.
    pub fn url(&self, database: &TestDatabase) -> String {
        database.by_way_of(self.address).url
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn program() -> Option<PathBuf> {
    let known =
        ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
    let known = known.map(Path::new).into_iter().find(|program| program.exists());
    let in_path = || Command::new("pgbouncer").arg("--version").output().is_ok().then(|| PathBuf::from("pgbouncer"));
    known.map(Path::to_owned).or_else(in_path)
}

/// Debian's configuration except for the mode, and with few server connections, so that clients
/// share them all the time.
fn configure(database: &TestDatabase, address: SocketAddr) -> String {
    let (server, options) = (database.server_address(), database.options());
    let password = database.url.split(['/', ':', '@']).nth(4).unwrap_or_default();
    format!(
        "[databases]\n* = host={} port={} user={} password={password}\n\
         [pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 4\n",
        server.ip(),
        server.port(),
        options.get_username(),
        address.ip(),
        address.port(),
    )
}
