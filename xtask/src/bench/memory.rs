//! Resident memory of a process and all its descendants.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;

const KIBIBYTE: u64 = 1024;

/// Resident bytes of `root` and its descendants: a router may have helpers.
pub(super) fn resident_bytes(root: u32) -> Result<u64> {
    let parents = parents().context("list /proc")?;
    let mut bytes = resident(root).with_context(|| format!("process {root} has ended"))?;
    for &process in parents.keys().filter(|&&process| process != root) {
        if descends(process, root, &parents) {
            // One that has ended meanwhile holds nothing.
            bytes += resident(process).unwrap_or(0);
        }
    }
    Ok(bytes)
}

fn descends(mut process: u32, root: u32, parents: &HashMap<u32, u32>) -> bool {
    while let Some(&parent) = parents.get(&process) {
        if parent == root {
            return true;
        }
        process = parent;
    }
    false
}

fn parents() -> Result<HashMap<u32, u32>> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let status = fs::read_to_string(format!("/proc/{process}/status"));
        if let Some(parent) = status.ok().and_then(|text| field(&text, "PPid:")) {
            parents.insert(process, u32::try_from(parent)?);
        }
    }
    Ok(parents)
}

fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    Some(field(&status, "VmRSS:")? * KIBIBYTE)
}

/// The first number after `name` in `/proc/<pid>/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_status_are_found_by_name() {
        let status = "Name:\tpgs\nPPid:\t17\nVmHWM:\t  9000 kB\nVmRSS:\t    5120 kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(5_120));
        assert_eq!(field(status, "PPid:"), Some(17));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[test]
    fn descendants_are_found_through_their_parents() {
        let parents = HashMap::from([(5, 4), (4, 2), (2, 1), (9, 1), (1, 0)]);
        assert!(descends(5, 2, &parents) && descends(4, 2, &parents));
        assert!(!descends(9, 2, &parents) && !descends(2, 5, &parents));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100 * KIBIBYTE);
        assert!(resident_bytes(u32::MAX).is_err());
    }
}
