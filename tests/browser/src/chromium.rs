//! Finds Chromium, or installs it where possible.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::OnceCell,
};

use crate::{
    devtools::Devtools,
    tab::{Look, Tab},
};

/// Headless, and without requests of its own.
const ARGUMENTS: [&str; 17] = [
    "--headless=new",
    "--remote-debugging-port=0",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
];

/// A Chromium with its own profile, for one test.
#[derive(Debug)]
pub struct Chromium {
    process: Child,
    devtools: Devtools,
    profile: PathBuf,
}

impl Chromium {
    /// Starts Chromium; `None` if it is missing and can't be installed.
    ///
    /// # Panics
    /// If it does not start, or is missing although `REQUIRE_CHROMIUM` is set.
    pub async fn start() -> Option<Self> {
        let Some(executable) = executable().await else {
            assert!(std::env::var_os("REQUIRE_CHROMIUM").is_none(), "Chromium should be installed");
            eprintln!("left out: no Chromium on this machine (Debian: apt-get install chromium fonts-inter)");
            return None;
        };
        let profile = std::env::temp_dir().join(format!("browser-test-{}", uuid::Uuid::new_v4()));
        let mut command = Command::new(executable);
        command.args(ARGUMENTS).arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
        if nix::unistd::geteuid().is_root() {
            command.arg("--no-sandbox"); // Chromium's sandbox does not work as root
        }
        command.env("FONTCONFIG_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/fonts.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("Chromium starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let address = tokio::time::timeout(Duration::from_secs(60), async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = line.strip_prefix("DevTools listening on ") {
                    return address.to_owned();
                }
            }
            panic!("Chromium ended before it listened");
        });
        let address = address.await.expect("Chromium listens");
        // Keep reading, because a full pipe would block Chromium.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { process, devtools: Devtools::connect(address.trim()).await, profile })
    }

    /// Opens a tab with this size and colour scheme.
    ///
    /// # Panics
    /// If Chromium has ended.
    pub async fn tab(&self, look: Look) -> Tab {
        Tab::new(self.devtools.clone(), look).await
    }

    /// Ends Chromium.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn close(mut self) {
        let _ = self.devtools.call("", "Browser.close", json!({})).await;
        tokio::time::timeout(Duration::from_secs(60), self.process.wait()).await.expect("it ends").expect("it ran");
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

async fn executable() -> Option<PathBuf> {
    static FOUND: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    FOUND
        .get_or_init(|| async {
            let missing = find().is_none();
            if missing && nix::unistd::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists() {
                apt_get(&["update", "--quiet=2"]).await;
                apt_get(&["install", "--yes", "--quiet=2", "--no-install-recommends", "chromium", "fonts-inter"]).await;
            }
            find()
        })
        .await
        .clone()
}

fn find() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&paths).collect();
    let names = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome"];
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
}

async fn apt_get(arguments: &[&str]) {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
    let _ = command.status().await; // the caller checks whether it is installed
}
