//! The processor time of processes, from Linux' `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// The clock ticks of `/proc/<pid>/stat`; always hundredths of a second on Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// The relevant fields of `/proc/<pid>/stat`.
struct Stat {
    parent: u32,
    /// The process' own time, in seconds.
    own: f64,
    /// The time of its ended children, in seconds.
    ended: f64,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name is in parentheses and may contain any character.
        let (_, rest) = text.rsplit_once(") ").context("/proc/<pid>/stat is not as Linux writes it")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let seconds = |place: usize| -> Result<f64> {
            Ok(fields.get(place).context("/proc/<pid>/stat is too short")?.parse::<f64>()? / TICKS_A_SECOND)
        };
        Ok(Self {
            parent: fields.get(1).context("/proc/<pid>/stat is too short")?.parse()?,
            own: seconds(11)? + seconds(12)?,
            ended: seconds(13)? + seconds(14)?,
        })
    }
}

/// Seconds of one process.
pub(crate) fn of_process(pid: u32) -> Result<f64> {
    Ok(Stat::of(pid)?.own)
}

/// Seconds of a process and all its children, also those that have ended.
pub(crate) fn of_family(pid: u32) -> Result<f64> {
    let head = Stat::of(pid)?;
    let mut seconds = head.own + head.ended;
    for entry in fs::read_dir("/proc")? {
        let child = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // A child that ends meanwhile is counted next time.
        if let Some(child) = child.and_then(|child| Stat::of(child).ok()).filter(|child| child.parent == pid) {
            seconds += child.own + child.ended;
        }
    }
    Ok(seconds)
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> Result<u32> {
    Ok(Stat::of(pid)?.parent)
}
