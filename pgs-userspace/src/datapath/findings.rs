//! What was found at the start: which path there is, and why not the other.

use super::DataPathError;
use super::PathRequest;
use super::canary;
use super::kernel;
use super::kernel::KernelPathError;

/// What was found at the start.
#[derive(Debug, Clone)]
pub struct Findings {
    /// What the user asked for.
    pub requested: PathRequest,
    /// Whether new sessions get the kernel path.
    pub kernel: bool,
    /// Why only backend to client is redirected, where that is so.
    pub one_way: Option<String>,
    /// Why not, where the user had not ruled it out.
    pub fallback: Option<Fallback>,
    /// What the canaries found, where they were run.
    pub canaries: Option<canary::Results>,
}

impl Findings {
    /// Before anything was tried.
    pub(super) fn none_of(requested: PathRequest) -> Self {
        Self {
            requested,
            kernel: false,
            one_way: None,
            fallback: None,
            canaries: None,
        }
    }

    /// The kernel path does not work here: the relay has to do, where it may.
    pub(super) fn refuse(&mut self, fallback: Fallback) -> Result<(), DataPathError> {
        let reason = &fallback.reason;
        if self.requested == PathRequest::Kernel {
            return Err(DataPathError::KernelRefused(reason.clone()));
        }
        tracing::warn!(%reason, "the kernel path does not work here: every session is relayed");
        self.kernel = false;
        self.one_way = None;
        self.fallback = Some(fallback);
        Ok(())
    }

    /// Why every session is relayed, where the user had not ruled the kernel path out.
    pub fn reason(&self) -> Option<&str> {
        self.fallback.as_ref().map(|fallback| &*fallback.reason)
    }
}

/// Why there is the relay where the kernel path was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// What kind of reason it is.
    pub cause: Cause,
    /// What failed, and why.
    pub reason: String,
}

/// Kinds of reasons, each with a fixed name: what a metric can be labelled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A canary failed.
    Canary,
    /// The kernel does not permit it: a capability is missing.
    NotPermitted,
    /// The programs or their maps cannot be had for another reason.
    NotLoaded,
}

impl Cause {
    /// As in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::NotPermitted => "not_permitted",
            Self::NotLoaded => "not_loaded",
        }
    }
}

impl From<&canary::Finding> for Fallback {
    fn from(failed: &canary::Finding) -> Self {
        Self {
            cause: Cause::Canary,
            reason: format!("canary `{}` failed: {}", failed.name, failed.detail),
        }
    }
}

impl From<&KernelPathError> for Fallback {
    fn from(error: &KernelPathError) -> Self {
        Self {
            cause: match kernel::is_refused_permission(error) {
                true => Cause::NotPermitted,
                false => Cause::NotLoaded,
            },
            reason: kernel::with_causes("kernel path", error),
        }
    }
}
