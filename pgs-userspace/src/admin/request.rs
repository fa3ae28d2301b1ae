//! The requests that `pgs serve` answers on its admin socket, and the answers.

use serde::Deserialize;
use serde::Serialize;

use crate::datapath::canary::Finding;
use crate::privileges::Held;

/// One request, one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the router is doing.
    Status,
    /// The live sessions, of one tenant or of all.
    Sessions {
        /// Only this tenant's.
        tenant: Option<String>,
    },
    /// End every live session of a tenant, without a message: what is to be said to its clients,
    /// the tenant's server has said before.
    Terminate {
        /// Whose sessions.
        tenant: String,
    },
    /// Read the configuration again.
    Reload,
}

/// The answer to one [`Request`], one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<RouterStatus>),
    /// To [`Request::Sessions`].
    Sessions {
        /// In the order of their ids.
        sessions: Vec<SessionReport>,
    },
    /// To [`Request::Terminate`].
    Terminated {
        /// How many sessions were told to end.
        sessions: usize,
    },
    /// To [`Request::Reload`].
    Reloaded(ReloadReport),
    /// The request could not be carried out.
    Failed {
        /// What failed, on what, why.
        message: String,
    },
}

/// How the router is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Process id of `pgs serve`.
    pub pid: u32,
    /// Package version of the serving binary.
    pub version: String,
    /// Seconds since this process began to serve.
    pub uptime_seconds: u64,
    /// Addresses it listens on, as `address:port`, or `address:port=tenant` for one tenant's.
    pub listen: Vec<String>,
    /// What the process may do on the machine, where `/proc` tells.
    pub privileges: Option<Held>,
    /// The configuration file that it has read.
    #[serde(default)]
    pub configuration_file: Option<String>,
    /// What was found when the configuration was read last.
    #[serde(default)]
    pub configuration: ReloadReport,
    /// What was asked for: `auto`, `kernel` or `relay`.
    pub path_requested: String,
    /// What new sessions get: `kernel` or `relay`.
    pub path: String,
    /// Why new sessions are relayed although the kernel path was not ruled out by the user.
    pub path_reason: Option<String>,
    /// What kind of reason that is: `canary`, `not_permitted` or `not_loaded`.
    #[serde(default)]
    pub path_fallback: Option<String>,
    /// Why only bytes to clients go through the kernel, where that is so.
    #[serde(default)]
    pub path_one_way: Option<String>,
    /// What the eBPF program has counted for each tenant, ended sessions included.
    #[serde(default)]
    pub kernel_bytes: std::collections::BTreeMap<String, KernelBytesReport>,
    /// What happened at each tenant that a client has reached.
    #[serde(default)]
    pub tenants: std::collections::BTreeMap<String, TenantReport>,
    /// What each start-up canary found.
    pub canaries: Vec<CanaryReport>,
    /// How long all of them took, where they were run.
    #[serde(default)]
    pub canaries_milliseconds: Option<u64>,
    /// Live sessions.
    pub sessions: usize,
    /// Live sessions whose backend-to-client bytes go through the kernel.
    pub sessions_kernel: usize,
    /// What keeps descriptors for the next router; none from a router that does not know of it.
    #[serde(default)]
    pub survival: Option<SurvivalReport>,
    /// Counters since the start, by name: `connections_accepted`, `connections_silent`, `sessions`,
    /// `cancels_routed`, `cancels_dropped`, …, and `refused_<name>` for each kind of refusal.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// What happened at one tenant since the start, and what is live.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantReport {
    /// Live sessions, logins under way included, by how their bytes travel: `startup`, `kernel`,
    /// `relay`, `tls`, `passthrough`.
    pub sessions: std::collections::BTreeMap<String, u64>,
    /// Sessions that began.
    pub sessions_begun: u64,
    /// Logins that the tenant's own server refused.
    pub logins_failed: u64,
    /// Requests to cancel that were delivered.
    pub cancels_routed: u64,
    /// What the router itself refused, by short name.
    pub refusals: std::collections::BTreeMap<String, u64>,
    /// Bytes from clients that the router moved.
    pub router_to_backend: u64,
    /// Bytes to clients that the router moved.
    pub router_to_client: u64,
    /// Bytes from clients that went through the kernel alone.
    pub kernel_to_backend: u64,
    /// Bytes to clients that went through the kernel alone.
    pub kernel_to_client: u64,
}

/// Bytes that went through the kernel alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelBytesReport {
    /// From clients.
    pub to_backend: u64,
    /// To clients.
    pub to_client: u64,
}

/// What was found when the configuration was read last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The file that holds.
    pub file: Option<String>,
    /// Why what was read then does not hold; what held before does.
    pub error: Option<String>,
    /// What that changed.
    pub changed: Vec<KeyChange>,
    /// What it says otherwise, and only a restart can change.
    pub needs_restart: Vec<KeyChange>,
    /// What it says and is hardly ever meant to.
    #[serde(default)]
    pub cautions: Vec<String>,
}

/// A key of the configuration with another value than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// Its section.
    pub section: String,
    /// Its name.
    pub name: String,
    /// What held.
    pub from: String,
    /// What is wanted.
    pub to: String,
    /// Whether a running router cannot take it over.
    pub restart: bool,
}

impl std::fmt::Display for KeyChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &str| match value {
            "" => "nothing".to_owned(),
            value => value.to_owned(),
        };
        let Self {
            section,
            name,
            from,
            to,
            ..
        } = self;
        write!(f, "[{section}] {name}: {} → {}", shown(from), shown(to))
    }
}

/// What keeps a router's descriptors when it is killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurvivalReport {
    /// `keeper`, `systemd` or `nothing`.
    pub kept_by: String,
    /// The keeper's process id, where it is one of ours.
    pub process_id: Option<u32>,
    /// Why nothing, or not everything, is kept.
    pub reason: Option<String>,
    /// First digits of the SHA-256 of the eBPF object whose programs all sessions use, where it is
    /// not this router's own but that of one whose sessions it goes on with.
    #[serde(default)]
    pub older_ebpf_object: Option<String>,
}

/// What one start-up canary found on this kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    /// Short name, such as `redirect` or `unix-bound`.
    pub name: String,
    /// Whether the kernel behaves as the kernel path needs.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

impl From<&Finding> for CanaryReport {
    fn from(finding: &Finding) -> Self {
        Self {
            name: finding.name.to_owned(),
            passed: finding.passed,
            detail: finding.detail.clone(),
        }
    }
}

/// One live session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Unique within the life of this router, and among the sessions that it has from the one
    /// before.
    pub id: u64,
    /// Tenant id.
    pub tenant: String,
    /// User of the startup message; not known where TLS passes through.
    pub user: Option<String>,
    /// Database of the startup message; likewise.
    pub database: Option<String>,
    /// Client's address, as `address:port`.
    pub client: String,
    /// `startup`, `kernel`, `relay`, `tls` or `passthrough`.
    pub path: String,
    /// Why it is relayed, where the kernel path was wanted; or with which process it is, where
    /// that is the router before this one.
    pub path_reason: Option<String>,
    /// Process id that the backend announced in BackendKeyData.
    pub backend_pid: Option<u32>,
    /// Seconds since the connection was accepted.
    pub age_seconds: u64,
    /// Seconds since the last byte in either direction, where known.
    pub idle_seconds: Option<u64>,
    /// Bytes from the client to the backend, by whatever path.
    pub bytes_to_backend: u64,
    /// Bytes from the backend to the client, by whatever path.
    pub bytes_to_client: u64,
    /// Of both, the bytes that the eBPF program redirected inside the kernel.
    pub bytes_in_kernel: u64,
    /// Times that bytes turned from the kernel to the router, because a turn was large or a side
    /// slow.
    #[serde(default)]
    pub diversions: u32,
    /// Times that its backend left the verdict, because it sent more than the router moved; those
    /// of an earlier router are not counted.
    #[serde(default)]
    pub withdrawals: u32,
}
