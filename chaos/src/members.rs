//! The product's processes, and the faults of a process.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
};

use sandbox::proxy::Proxy;

use crate::kit::Kit;

/// Seconds by which a clock is moved at most. Stripe's signatures and the product's search for sessions
/// tolerate five minutes.
pub(crate) const CLOCK_OFF: i64 = 240;

/// The kind of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Api,
    Worker,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }
}

/// A process with its own proxy to Postgres.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its index among all processes.
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    /// The address of `/readyz`; an api serves everything there.
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Proxy,
    binary: PathBuf,
    variables: Vec<(String, String)>,
    log: PathBuf,
    clock: Option<PathBuf>,
    /// Locked during a fault, so that a process has one fault at a time.
    child: Mutex<Option<Child>>,
}

/// A free port for the whole run; a restarted process uses it again.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Member {
    pub(crate) fn new(
        kit: &Kit,
        number: usize,
        kind: Kind,
        proxy: Proxy,
        mut variables: Vec<(String, String)>,
    ) -> Result<Self> {
        let address = free_address()?;
        let own = match kind {
            Kind::Api => "BIND_ADDR",
            Kind::Worker => "HEALTH_ADDR",
        };
        variables.push((own.to_owned(), address.to_string()));
        let name = format!("{}-{number}", kind.name());
        let clock = match &kit.faketime {
            Ok(library) => {
                let file = kit.folder.join(format!("{name}.clock"));
                fs::write(&file, "+0s\n")?;
                variables.extend(fake_clock(library.display().to_string(), file.display().to_string()));
                Some(file)
            }
            Err(_) => None,
        };
        let (binary, log) = (kit.binary(kind.name()), kit.folder.join(format!("{name}.log")));
        Ok(Self { number, kind, address, proxy, binary, variables, log, clock, child: Mutex::new(None) })
    }

    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.kind.name(), self.number)
    }

    /// The path of its log.
    pub(crate) fn log(&self) -> &PathBuf {
        &self.log
    }

    /// Locks the process for one fault.
    pub(crate) async fn hold(&self) -> Held<'_> {
        Held { member: self, child: self.child.lock().await }
    }

    /// Like [`Member::hold`]; `None` if the process is locked.
    pub(crate) fn try_hold(&self) -> Option<Held<'_>> {
        Some(Held { member: self, child: self.child.try_lock().ok()? })
    }

    /// Shifts its clock by this many seconds.
    pub(crate) fn set_clock(&self, seconds: i64) -> Result<()> {
        let file = self.clock.as_ref().context("its clock can't be moved")?;
        // Rename the file, because the process may read it at any time.
        let beside = file.with_extension("new");
        fs::write(&beside, format!("{seconds:+}s\n"))?;
        Ok(fs::rename(beside, file)?)
    }

    /// Whether `/readyz` returns 200.
    pub(crate) async fn is_ready(&self, http: &reqwest::Client) -> bool {
        let url = format!("http://{}/readyz", self.address);
        let answer = http.get(url).timeout(Duration::from_secs(3)).send().await;
        answer.is_ok_and(|answer| answer.status() == reqwest::StatusCode::OK)
    }

    /// Waits until the process is ready.
    pub(crate) async fn becomes_ready(&self, http: &reqwest::Client, within: Duration) -> Result<()> {
        let begun = Instant::now();
        while !self.is_ready(http).await {
            if begun.elapsed() > within {
                bail!("{} is not ready after {within:?}; its log is {}", self.name(), self.log.display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// The variables that make libfaketime shift the wall clock by the file's offset, but not the
/// monotonic clock.
fn fake_clock(library: String, file: String) -> impl Iterator<Item = (String, String)> {
    [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file),
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_DONT_RESET", "1".to_owned()),
        // Shared memory named by process ids would remain after a kill.
        ("FAKETIME_DISABLE_SHM", "1".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
}

/// A locked process.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    pub(crate) member: &'a Member,
    child: MutexGuard<'a, Option<Child>>,
}

impl Held<'_> {
    pub(crate) fn start(&mut self) -> Result<()> {
        let member = self.member;
        let log = File::options().create(true).append(true).open(&member.log)?;
        let child = Command::new(&member.binary)
            .env_clear()
            .envs(member.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(member.log.parent().context("the log is in a folder")?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", member.binary.display()))?;
        *self.child = Some(child);
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            self.child.as_ref().and_then(Child::id).with_context(|| format!("{} has ended", self.member.name()))?;
        Ok(kill(Pid::from_raw(pid.cast_signed()), signal)?)
    }

    /// Sends SIGKILL and waits for the process.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.start_kill()?;
            child.wait().await?;
        }
        Ok(())
    }

    /// The exit status, if the process ended by itself.
    pub(crate) fn ended(&mut self) -> Result<Option<String>> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        Ok(child.try_wait()?.map(|status| status.to_string()))
    }

    /// Sends SIGTERM; returns whether the process ended with success within this time.
    pub(crate) async fn stop(&mut self, within: Duration) -> Result<bool> {
        self.signal(Signal::SIGTERM)?;
        let Some(mut child) = self.child.take() else { return Ok(true) };
        match tokio::time::timeout(within, child.wait()).await {
            Ok(status) => Ok(status?.success()),
            Err(_) => {
                child.start_kill()?;
                child.wait().await?;
                Ok(false)
            }
        }
    }
}
