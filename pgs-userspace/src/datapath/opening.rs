//! What the workers use of the kernel path, opened before the first of them runs: that can fail
//! where the path itself was proved to work.

use super::kernel::Inheritance;
use super::kernel::KernelAccess;
use super::kernel::KernelPath;
use super::kernel::KernelPathError;
use super::kernel::Notices;
use crate::config::limits::WORKERS_MAX;

/// The kernel path with everything that takes a descriptor.
pub(super) struct Opened {
    pub(super) kernel: KernelPath,
    /// One for each worker.
    pub(super) accesses: Vec<KernelAccess>,
    pub(super) notices: Notices,
    /// Whether the maps are those of the router before.
    pub(super) inherited: bool,
    /// Of which eBPF object the programs are, where it is not this router's own.
    pub(super) older_object: Option<String>,
}

impl Opened {
    /// With the maps of the last router where they can be used.
    pub(super) fn new(
        own: KernelPath,
        left: Inheritance,
        workers: usize,
    ) -> Result<Self, KernelPathError> {
        let own_object = own.object().clone();
        let left = own.with_maps_of(left)?;
        let inherited = left.is_some();
        let kernel = left.unwrap_or(own);
        // As long as its sessions live, its maps do.
        let older_object = (*kernel.object() != own_object).then(|| kernel.object().to_string());
        if let Some(object) = &older_object {
            tracing::warn!(
                object,
                "sessions of a router with another eBPF object go on: all sessions use its \
                 programs until `pgs serve` starts while none is in the kernel"
            );
        }
        let accesses = (0..workers)
            .map(|index| kernel.access(index as u32, workers as u32))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            accesses,
            notices: kernel.notices()?,
            kernel,
            inherited,
            older_object,
        })
    }
}

/// As many workers as there are cores, as far as that pays.
pub(super) fn workers_for(cores: usize) -> usize {
    cores.clamp(1, WORKERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::DataPath;
    use super::super::DataPathError;
    use super::super::PathRequest;
    use super::super::Prepared;
    use super::super::arrivals_tests::kernel;
    use super::super::choose;
    use super::*;

    #[test]
    fn many_cores_have_a_bounded_number_of_workers() {
        assert_eq!([0, 1, 2, 300].map(workers_for), [1, 1, 2, WORKERS_MAX]);
    }

    /// Has no place left for the probe of a worker.
    fn prepared(requested: PathRequest) -> Option<(Prepared, Vec<KernelAccess>)> {
        kernel()?;
        let (kernel, findings) = choose(requested).unwrap();
        let loaded = kernel.as_ref().unwrap();
        let taken = std::iter::from_fn(|| loaded.access(0, 1).ok()).collect();
        Some((Prepared { kernel, findings }, taken))
    }

    #[test]
    fn what_the_workers_cannot_open_leaves_the_relay_where_that_may_be() {
        let Some((prepared, taken)) = prepared(PathRequest::Auto) else {
            return;
        };
        assert!(prepared.findings.kernel && !taken.is_empty());
        let data_path = DataPath::start(prepared, Inheritance::default()).unwrap();
        let findings = data_path.findings().clone();
        assert!(!findings.kernel, "{findings:?}");
        let reason = findings.reason().unwrap();
        assert!(reason.contains("eBPF map"), "{reason}");
        assert!(data_path.kept_maps().is_empty());

        let Some((prepared, _taken)) = self::prepared(PathRequest::Kernel) else {
            return;
        };
        match DataPath::start(prepared, Inheritance::default()) {
            Err(DataPathError::KernelRefused(why)) => assert!(why.contains("eBPF map"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
