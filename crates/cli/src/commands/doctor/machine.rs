//! Checks of the machine: the kernel, its limits, the disk.

use std::fs;
use std::path::Path;

use super::{Check, Level, disk};
use crate::table::bytes;

/// Mappings that a sandbox takes at most.
const MAPPINGS_PER_SANDBOX: u64 = 4;
/// Mappings for ten thousand sandboxes and the process itself.
const MAP_COUNT_WANTED: u64 = 10_000 * MAPPINGS_PER_SANDBOX + 8192;
/// Files for a thousand connections and the node's own.
const FILES_WANTED: u64 = 4096;

/// Everything that can be said without a node.
pub fn checks(data: &Path) -> Vec<Check> {
    vec![
        processor(),
        kernel(),
        memfd(),
        pagemap_scan(),
        userfaultfd(),
        kvm(node::micro_vms_missing()),
        confined(node::not_confined()),
        map_count(&read("/proc/sys/vm/max_map_count")),
        files(),
        cgroup(),
        disk(data),
    ]
}

fn read(file: &str) -> String {
    fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn processor() -> Check {
    const NAME: &str = "processor";
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{}, {cores} cores", std::env::consts::ARCH);
    match std::env::consts::ARCH {
        "x86_64" => Check::ok(NAME, found),
        _ => Check::new(
            NAME,
            Level::Note,
            found,
            "Dunlin is tested on x86_64; other processors may work, and are slower to support.",
        ),
    }
}

fn kernel() -> Check {
    const NAME: &str = "kernel";
    let release = read("/proc/sys/kernel/osrelease");
    match version(&release) {
        Some(version) if version >= (5, 10) => Check::ok(NAME, release),
        _ => Check::new(
            NAME,
            Level::Note,
            release,
            "Kernels before 5.10 are not tested. Use a newer one.",
        ),
    }
}

/// Major and minor of a kernel release such as `6.7.0-1-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn memfd() -> Check {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    const NAME: &str = "sealed memfds";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let sealed = memfd_create("doctor", flags)
        .and_then(|file| fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::WRITE));
    match sealed {
        Ok(()) => Check::ok(NAME, "memfd_create works"),
        Err(error) => Check::new(
            NAME,
            Level::Missing,
            error.to_string(),
            "Images of functions are kept in sealed memfds, and no sandbox starts without. Allow \
             memfd_create in the seccomp profile of the container.",
        ),
    }
}

fn pagemap_scan() -> Check {
    const NAME: &str = "PAGEMAP_SCAN";
    if memory::dirty_tracking() {
        return Check::ok(NAME, "the kernel tells which pages a guest wrote");
    }
    Check::new(
        NAME,
        Level::Note,
        "not offered",
        "The kernel cannot tell which pages a guest wrote, so a reset drops all of them and the \
         next call faults them in again: slower with much memory. Linux 6.7 brings it.",
    )
}

fn userfaultfd() -> Check {
    const NAME: &str = "userfaultfd";
    let open = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd");
    if open.is_ok() || read("/proc/sys/vm/unprivileged_userfaultfd") == "1" {
        return Check::ok(NAME, "may be used");
    }
    if rustix::process::geteuid().is_root() {
        return Check::ok(NAME, "may be used as root");
    }
    Check::new(
        NAME,
        Level::Note,
        "not allowed for this user",
        "In a cluster, large images are then whole on this node before guests begin over them. To \
         allow that they begin sooner: give the user /dev/userfaultfd, or `sysctl -w vm.unprivileged_userfaultfd=1`.",
    )
}

/// Whether micro-VMs can run; `missing` says why not.
fn kvm(missing: Option<String>) -> Check {
    const NAME: &str = "micro-VMs";
    let Some(missing) = missing else {
        return Check::ok(NAME, "/dev/kvm offers all that they need");
    };
    Check::new(
        NAME,
        Level::Note,
        missing,
        "Needed only for functions with `isolation = \"vm\"`, whose deploys are refused here; \
         WebAssembly runs without. To allow them: enable virtualisation, load kvm_intel, kvm_amd \
         or kvm_pvm, and add the user to the group that owns /dev/kvm, often `kvm`.",
    )
}

/// Whether threads that run guests are confined; `reason` says why not.
fn confined(reason: Option<String>) -> Check {
    const NAME: &str = "seccomp";
    let Some(reason) = reason else {
        return Check::ok(NAME, "threads that run guests are confined");
    };
    Check::new(
        NAME,
        Level::Note,
        reason,
        "Threads that run guests take a filter of system calls, and could not here: what breaks \
         out of a wall may start programs. Use a kernel with CONFIG_SECCOMP_FILTER, and allow \
         `seccomp` and `prctl` in the profile of the container.",
    )
}

fn map_count(text: &str) -> Check {
    const NAME: &str = "vm.max_map_count";
    let Ok(count) = text.parse::<u64>() else {
        return Check::new(
            NAME,
            Level::Note,
            "cannot be read",
            "The limit is not known.",
        );
    };
    if count >= MAP_COUNT_WANTED {
        return Check::ok(NAME, count.to_string());
    }
    let fit = count.saturating_sub(8192) / MAPPINGS_PER_SANDBOX;
    Check::new(
        NAME,
        Level::Note,
        count.to_string(),
        format!(
            "About {fit} sandboxes fit; a node raises the limit by itself if it may. For ten \
             thousand: `sysctl -w vm.max_map_count={MAP_COUNT_WANTED}`."
        ),
    )
}

fn files() -> Check {
    const NAME: &str = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.current {
        Some(count) if count < FILES_WANTED => Check::new(
            NAME,
            Level::Note,
            count.to_string(),
            format!(
                "Each connection takes one. Raise the limit for many clients: `ulimit -n \
                 {FILES_WANTED}`, or LimitNOFILE= in the unit."
            ),
        ),
        Some(count) => Check::ok(NAME, count.to_string()),
        None => Check::ok(NAME, "no limit"),
    }
}

fn cgroup() -> Check {
    const NAME: &str = "cgroup";
    let own = read("/proc/self/cgroup");
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Check::new(
            NAME,
            Level::Note,
            "no cgroup v2",
            "Without cgroup v2 only the limits of each function bound memory and processor time. \
             Boot with systemd.unified_cgroup_hierarchy=1 to bound the node as a whole.",
        );
    };
    let folder = format!("/sys/fs/cgroup{}", path.trim_end_matches('/'));
    let limit = read(&format!("{folder}/memory.max"));
    let memory = match limit.parse::<u64>() {
        Ok(limit) => format!("at most {} of memory", bytes(limit)),
        Err(_) => "no limit of memory".to_owned(),
    };
    Check::ok(NAME, format!("v2, {memory}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(version("6.7.0-1-amd64"), Some((6, 7)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!(version(""), None);
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn a_check_that_is_not_ok_says_what_to_do() {
        for check in checks(Path::new("/nonexistent/data")) {
            assert_eq!(
                check.level == Level::Ok,
                check.advice.is_empty(),
                "{check:?}"
            );
        }
        let few = map_count("30000");
        assert_eq!(few.level, Level::Note);
        assert!(few.advice.contains("sysctl"), "{few:?}");
        assert_eq!(map_count("1048576").level, Level::Ok);
        assert_eq!(map_count("").level, Level::Note);
        let missing = kvm(Some("there is no device".into()));
        assert_eq!(missing.level, Level::Note);
        assert!(missing.found.contains("no device"));
        assert_eq!(kvm(None).level, Level::Ok);
    }
}
