//! Files that the system makes up: devices, and what programs ask of /proc and /sys.

use std::fmt::Write;

use super::descriptor::Object;
use super::maps::Use;
use super::process::{Process, USER};
use super::thread::FIRST;
use crate::layout::PAGE;

/// The program's own path, as it is told.
pub const PROGRAM_PATH: &[u8] = b"/bin/function";

/// A file that is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pseudo {
    /// A device.
    Device(Device),
    /// A text, by where it is in [`TEXTS`].
    Text(usize),
    /// A link, by what it leads to.
    Link(Link),
    /// A directory of such.
    Directory,
}

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// /dev/null.
    Null,
    /// /dev/zero.
    Zero,
    /// /dev/full.
    Full,
    /// /dev/random and /dev/urandom.
    Random,
    /// A descriptor that is open already.
    Descriptor(i32),
}

/// Where a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// To the program.
    Program,
    /// To the working directory.
    Directory,
    /// To the root.
    Root,
}

type Writer = fn(&Process) -> String;

/// Texts by path; `/proc/self` stands for every way to name the process.
const TEXTS: &[(&str, Writer)] = &[
    ("/proc/self/maps", maps),
    ("/proc/self/status", status),
    ("/proc/self/stat", stat),
    ("/proc/self/statm", statm),
    ("/proc/self/cmdline", command_line),
    ("/proc/self/comm", |_| "function\n".into()),
    ("/proc/self/cgroup", |_| "0::/\n".into()),
    ("/proc/self/mountinfo", mount_info),
    ("/proc/self/mounts", |_| "none / none rw 0 0\n".into()),
    ("/proc/mounts", |_| "none / none rw 0 0\n".into()),
    ("/proc/self/limits", |_| {
        "Limit                     Soft Limit           Hard Limit           \
        Units     \nMax open files            1024                 1024                 files     \n"
        .into()
    }),
    ("/proc/cpuinfo", cpu_info),
    ("/proc/meminfo", memory_info),
    ("/proc/stat", times),
    ("/proc/uptime", uptime),
    ("/proc/loadavg", |_| "0.00 0.00 0.00 1/1 2\n".into()),
    ("/proc/version", |_| {
        format!(
            "Linux version {} (dunlin)\n",
            super::calls::identity::RELEASE
        )
    }),
    ("/proc/filesystems", |_| "nodev\tproc\n".into()),
    ("/proc/sys/kernel/osrelease", |_| {
        format!("{}\n", super::calls::identity::RELEASE)
    }),
    ("/proc/sys/kernel/pid_max", |_| "32768\n".into()),
    ("/proc/sys/vm/overcommit_memory", |_| "0\n".into()),
    ("/proc/sys/net/core/somaxconn", |_| "64\n".into()),
    ("/sys/devices/system/cpu/online", processors),
    ("/sys/devices/system/cpu/possible", processors),
    ("/sys/kernel/mm/transparent_hugepage/enabled", |_| {
        "always [madvise] never\n".into()
    }),
];

/// Directories that hold such files.
const DIRECTORIES: &[&str] = &[
    "/dev",
    "/proc",
    "/proc/self",
    "/proc/self/fd",
    "/sys",
    "/dev/fd",
];

/// What is made up at `path`, which is absolute; none if that is left to the files.
pub fn find(path: &[u8]) -> Option<Pseudo> {
    let path = std::str::from_utf8(path).ok()?;
    let path = match path.strip_prefix(&format!("/proc/{}", FIRST.0)) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/proc/self{rest}"),
        _ => path.to_owned(),
    };
    let device = |device| Some(Pseudo::Device(device));
    match path.as_str() {
        "/dev/null" => return device(Device::Null),
        "/dev/zero" => return device(Device::Zero),
        "/dev/full" => return device(Device::Full),
        "/dev/random" | "/dev/urandom" => return device(Device::Random),
        "/dev/stdin" => return device(Device::Descriptor(0)),
        "/dev/stdout" => return device(Device::Descriptor(1)),
        "/dev/stderr" => return device(Device::Descriptor(2)),
        "/proc/self/exe" => return Some(Pseudo::Link(Link::Program)),
        "/proc/self/cwd" => return Some(Pseudo::Link(Link::Directory)),
        "/proc/self/root" => return Some(Pseudo::Link(Link::Root)),
        _ => {}
    }
    let number = path
        .strip_prefix("/dev/fd/")
        .or(path.strip_prefix("/proc/self/fd/"));
    if let Some(number) = number {
        return number
            .parse()
            .ok()
            .and_then(|number| device(Device::Descriptor(number)));
    }
    if DIRECTORIES.contains(&path.trim_end_matches('/')) {
        return Some(Pseudo::Directory);
    }
    let text = TEXTS.iter().position(|(name, _)| *name == path)?;
    Some(Pseudo::Text(text))
}

/// The device as an object; none for a descriptor.
pub fn object(device: Device) -> Option<Object> {
    match device {
        Device::Null => Some(Object::Null),
        Device::Zero => Some(Object::Zero),
        Device::Full => Some(Object::Full),
        Device::Random => Some(Object::Random),
        Device::Descriptor(_) => None,
    }
}

/// The text with this number.
pub fn text(process: &Process, number: usize) -> Vec<u8> {
    let text = TEXTS.get(number).map(|(_, write)| write(process));
    text.unwrap_or_default().into_bytes()
}

/// Where a link leads.
pub fn target(process: &Process, link: Link) -> Vec<u8> {
    match link {
        Link::Program => PROGRAM_PATH.to_vec(),
        Link::Root => b"/".to_vec(),
        Link::Directory => {
            let path = process.files.path_of(process.directory);
            path.unwrap_or_else(|| b"/".to_vec())
        }
    }
}

fn maps(process: &Process) -> String {
    let mut text = String::new();
    for (start, area) in process.maps.areas() {
        let sign = |there, sign| if there { sign } else { '-' };
        let protection = area.protection;
        let name = match area.what {
            Use::Program => "/bin/function",
            Use::Heap => "[heap]",
            Use::Stack => "[stack]",
            Use::Mapping => "",
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{start:08x}-{:08x} {}{}{}p 00000000 00:00 0 {name}",
            area.end,
            sign(protection.read, 'r'),
            sign(protection.write, 'w'),
            sign(protection.execute, 'x'),
        );
    }
    text
}

fn mapped_bytes(process: &Process) -> u64 {
    let areas = process.maps.areas();
    areas.map(|(start, area)| area.end - start).sum()
}

fn status(process: &Process) -> String {
    let pid = FIRST.0;
    format!(
        "Name:\tfunction\nState:\tR (running)\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t1\nTracerPid:\t0\n\
         Uid:\t{USER}\t{USER}\t{USER}\t{USER}\nGid:\t{USER}\t{USER}\t{USER}\t{USER}\n\
         VmSize:\t{} kB\nVmRSS:\t{} kB\nThreads:\t{}\nCpus_allowed:\t{:x}\n\
         Cpus_allowed_list:\t{}",
        mapped_bytes(process) >> 10,
        process.maps.present_bytes() >> 10,
        process.threads.count(),
        (1_u64 << process.processors) - 1,
        processors(process),
    )
}

/// The processors' numbers, as a list of spans.
fn processors(process: &Process) -> String {
    match process.processors {
        0 | 1 => "0\n".into(),
        count => format!("0-{}\n", count - 1),
    }
}

fn times(process: &Process) -> String {
    const NONE: &str = " 0 0 0 0 0 0 0 0 0 0\n";
    let each = (0..process.processors).map(|number| format!("cpu{number}{NONE}"));
    format!("cpu {NONE}") + &each.collect::<String>()
}

fn stat(process: &Process) -> String {
    let ticks = process.now.cpu_ns / 10_000_000;
    format!(
        "{pid} (function) R 1 {pid} {pid} 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 {threads} 0 0 {size} \
         {pages} 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        pid = FIRST.0,
        threads = process.threads.count(),
        size = mapped_bytes(process),
        pages = process.maps.present_bytes() / PAGE,
    )
}

fn statm(process: &Process) -> String {
    let (size, pages) = (
        mapped_bytes(process) / PAGE,
        process.maps.present_bytes() / PAGE,
    );
    format!("{size} {pages} 0 0 0 {pages} 0\n")
}

fn command_line(process: &Process) -> String {
    let args = process.args.iter().map(|arg| String::from_utf8_lossy(arg));
    args.map(|arg| format!("{arg}\0")).collect()
}

fn mount_info(_: &Process) -> String {
    "1 0 0:1 / / rw - none none rw\n".into()
}

fn cpu_info(process: &Process) -> String {
    let each = (0..process.processors).map(|number| {
        format!(
            "processor\t: {number}\nvendor_id\t: unknown\nmodel name\t: virtual\n\
             cpu MHz\t\t: 1000.000\n\n"
        )
    });
    each.collect()
}

fn memory_info(process: &Process) -> String {
    let total = process.memory_bytes_max >> 10;
    let free = total.saturating_sub(process.maps.present_bytes() >> 10);
    format!(
        "MemTotal: {total:>15} kB\nMemFree: {free:>16} kB\nMemAvailable: {free:>11} kB\n\
         Buffers: {0:>16} kB\nCached: {0:>17} kB\nSwapTotal: {0:>14} kB\nSwapFree: {0:>15} kB\n",
        0
    )
}

fn uptime(process: &Process) -> String {
    let seconds = process.now.monotonic_ns / 1_000_000_000;
    format!("{seconds}.00 0.00\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_what_is_made_up_or_to_the_files() {
        assert_eq!(find(b"/dev/null"), Some(Pseudo::Device(Device::Null)));
        assert_eq!(find(b"/proc/2/exe"), Some(Pseudo::Link(Link::Program)));
        assert_eq!(
            find(b"/proc/self/fd/7"),
            Some(Pseudo::Device(Device::Descriptor(7)))
        );
        assert_eq!(find(b"/proc/self/"), Some(Pseudo::Directory));
        assert!(matches!(find(b"/proc/2/maps"), Some(Pseudo::Text(_))));
        for path in [
            &b"/proc/22/maps"[..],
            b"/dev/fd/x",
            b"/etc/passwd",
            b"/dev/sda",
            b"\xff",
        ] {
            assert_eq!(find(path), None);
        }
    }
}
