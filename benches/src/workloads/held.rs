//! The memory that processes hold: their own, and what they hold in memory files.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a watch looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Bytes that a process holds: its private memory, its share of the files that it maps, and all of
/// its memory files, whether they are mapped right now or not. 0 for one that is gone.
pub fn bytes(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_default()
    };
    let own = (kib("Pss_Anon:") + kib("Pss_File:")) * 1024;
    (own + memory_files(pid)) as f64
}

fn memory_files(pid: u32) -> u64 {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    // A file may be open more than once.
    let mut held = HashMap::new();
    for file in files.flatten() {
        let path = file.path();
        let target = std::fs::read_link(&path).unwrap_or_default();
        let is_memory = target.to_string_lossy().starts_with("/memfd:");
        if let (true, Ok(data)) = (is_memory, std::fs::metadata(&path)) {
            held.insert(data.ino(), data.blocks() * BLOCK_BYTES);
        }
    }
    held.values().sum()
}

/// The processes that a process started and that are still there.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let lists =
        threads.into_iter().flatten().flatten().map(|thread| {
            std::fs::read_to_string(thread.path().join("children")).unwrap_or_default()
        });
    lists
        .flat_map(|list| {
            list.split(' ')
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Looks at processes until it is asked for their peak.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl Watch {
    /// Begins to look at what some hold together.
    pub fn start(look: impl Fn() -> f64 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = look();
            while !asked.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK_EVERY);
                peak = peak.max(look());
            }
            peak
        });
        Self { stop, thread }
    }

    /// The most bytes that they held together when they were looked at.
    pub fn peak_bytes(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        // A watch that panicked saw nothing.
        self.thread.join().unwrap_or(f64::NAN)
    }
}
