//! How many mappings a process may hold, and asking for more.

use std::fs;

const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";
/// Mappings of the process that are not ranges: code, heaps, threads, files.
const OTHER_MAPPINGS: usize = 8192;
/// Mappings of a range: poll page, image, grown part, and the reservation's rest.
const MAPPINGS_PER_RANGE: usize = 4;
/// What the kernel takes without complaint.
const MAP_COUNT_MOST: usize = i32::MAX as usize;

/// How many of `wanted` ranges fit `vm.max_map_count`, after raising it if that is allowed.
pub(crate) fn ranges_that_fit(wanted: usize) -> usize {
    let Some(limit) = read() else {
        return wanted;
    };
    let needed = (wanted * MAPPINGS_PER_RANGE + OTHER_MAPPINGS).min(MAP_COUNT_MOST);
    if limit >= needed {
        return wanted;
    }
    if fs::write(MAX_MAP_COUNT, needed.to_string()).is_ok() && read().is_some_and(|n| n >= needed) {
        tracing::info!(
            from = limit,
            to = needed,
            "raised vm.max_map_count to fit {wanted} sandboxes"
        );
        return wanted;
    }
    let fit = limit.saturating_sub(OTHER_MAPPINGS) / MAPPINGS_PER_RANGE;
    tracing::warn!(
        limit,
        needed,
        "only {fit} of {wanted} sandboxes fit vm.max_map_count: set it with `sysctl -w vm.max_map_count={needed}`"
    );
    fit.max(1)
}

fn read() -> Option<usize> {
    fs::read_to_string(MAX_MAP_COUNT).ok()?.trim().parse().ok()
}
