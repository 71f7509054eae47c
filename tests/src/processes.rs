//! Runs the real binaries as processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::mpsc,
};

use sandbox::cargo::{REPOSITORY, cargo};

use crate::{DEADLINE, database::binaries};

static BUILT: OnceLock<()> = OnceLock::new();

/// Builds a binary of this workspace with the test's profile; returns its path.
fn binary(name: &str) -> PathBuf {
    BUILT.get_or_init(|| {
        // Tests build only the binaries of their own package. Selecting the whole workspace uses
        // the features of `cargo test --workspace`, so nothing is compiled twice.
        let mut build = cargo(Path::new(REPOSITORY));
        build.args(["build", "--quiet", "--workspace", "--bins"]);
        if binaries().ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo is there").success(), "the binaries should build");
    });
    binaries().join(name)
}

/// The path of a binary of this workspace, after building it.
///
/// # Panics
/// If the build fails.
pub async fn program(name: &str) -> PathBuf {
    let name = name.to_owned();
    tokio::task::spawn_blocking(move || binary(&name)).await.expect("it builds")
}

/// Runs a binary to its end, with these arguments and exactly these variables.
///
/// # Panics
/// If it does not start, or does not end.
pub async fn run<'a>(
    name: &str,
    arguments: &[&str],
    variables: impl IntoIterator<Item = (&'a str, String)>,
) -> std::process::Output {
    let output = tokio::process::Command::new(program(name).await)
        .args(arguments)
        .env_clear()
        .envs(variables)
        .current_dir(std::env::temp_dir()) // a folder without `.env`
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await;
    output.expect("it should end").expect("it starts")
}

/// A process that is killed when the test ends.
#[derive(Debug)]
pub struct Process {
    child: tokio::process::Child,
    /// The lines of standard error, read continuously, because a full pipe would block the process.
    log: mpsc::UnboundedReceiver<String>,
}

impl Process {
    /// Starts a binary with exactly these variables.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start<'a>(name: &str, variables: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        Self::start_program(&program(name).await, variables)
    }

    /// Starts a program with exactly these variables.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_program<'a>(path: &Path, variables: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let mut child = tokio::process::Command::new(path)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .envs(variables)
            .current_dir(std::env::temp_dir()) // a folder without `.env`
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (sender, log) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.send(line);
            }
        });
        Self { child, log }
    }

    /// The process id.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The TCP ports that the process listens on. Linux only.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn listening_ports(&self) -> Vec<u16> {
        let own: Vec<String> = fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("it runs")
            .filter_map(|file| Some(fs::read_link(file.ok()?.path()).ok()?.to_string_lossy().into_owned()))
            .collect();
        let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
        let sockets = tables.iter().flat_map(|table| table.lines().skip(1));
        let port = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields[3] == "0A" && own.contains(&format!("socket:[{}]", fields[9]));
            let (_, port) = fields[1].rsplit_once(':')?;
            listens.then(|| u16::from_str_radix(port, 16).expect("a port"))
        };
        sockets.filter_map(port).collect()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it runs");
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("it runs");
    }

    /// Reads the log until a line contains `text`; returns that line.
    ///
    /// # Panics
    /// If the process ends before, or the line does not appear in time.
    pub async fn says(&mut self, text: &str) -> String {
        let found = tokio::time::timeout(DEADLINE, async {
            while let Some(line) = self.log.recv().await {
                if line.contains(text) {
                    return line;
                }
            }
            panic!("it ended without saying {text:?}");
        });
        found.await.unwrap_or_else(|_| panic!("it did not say {text:?} in time"))
    }

    /// The lines logged since the last read.
    pub fn said(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.log.try_recv().ok()).collect()
    }

    /// The next line of the log; `None` once the process has ended.
    pub async fn next_line(&mut self) -> Option<String> {
        self.log.recv().await
    }

    /// Waits until the process has ended; returns its exit code, `None` after a signal.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn ends(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(DEADLINE, self.child.wait());
        status.await.expect("it should end").expect("it can be waited for").code()
    }
}
