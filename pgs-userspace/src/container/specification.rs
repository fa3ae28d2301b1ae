//! What a tenant's container and volume are made of, as Docker is told.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::models::HealthConfig;
use bollard::models::HostConfig;
use bollard::models::HostConfigLogConfig;
use bollard::models::Mount;
use bollard::models::MountType;
use bollard::models::MountVolumeOptions;
use bollard::models::RestartPolicy;
use bollard::models::RestartPolicyNameEnum;

use crate::config::limits::CONTAINER_LOG_FILE_SIZE;
use crate::config::limits::CONTAINER_LOG_FILES;
use crate::config::limits::CONTAINER_PIDS_MAX;
use crate::config::limits::CONTAINER_SHM_BYTES;
use crate::config::limits::CONTAINER_STOP_GRACE;
use crate::config::limits::HEALTH_DEADLINE;
use crate::config::limits::HEALTH_INTERVAL;
use crate::config::limits::HEALTH_RETRIES;
use crate::config::limits::SERVER_READY_DEADLINE;
use crate::container::readiness::READY_TEST;
use crate::container::server_tls::TlsEnd;
use crate::tenant::record::Blueprint;

/// Where the image keeps its data (PostgreSQL 18 images: PGDATA is `18/docker` in it).
pub(super) const DATA_TARGET: &str = "/var/lib/postgresql";

/// Where the server puts its socket.
const SOCKET_TARGET: &str = "/var/run/postgresql";

/// Root in the container needs these until the entrypoint has changed to the server's user: to own
/// the data and socket directories (CHOWN, FOWNER, DAC_OVERRIDE) and for the change itself.
const CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"];

/// The entrypoint insists on a password for the superuser. It reads one that nobody knows from the
/// kernel's generator of random UUIDs; once the server runs, the superuser's password is set to
/// NULL. Later starts read another one and do nothing with it. Until `pg_hba.conf` has its final
/// lines, only `peer` gets in over the socket.
const ENVIRONMENT: [&str; 3] = [
    "POSTGRES_PASSWORD_FILE=/proc/sys/kernel/random/uuid",
    "POSTGRES_HOST_AUTH_METHOD=scram-sha-256",
    "POSTGRES_INITDB_ARGS=--auth-local=peer --auth-host=scram-sha-256",
];

/// The container of one tenant.
pub(super) fn container(
    blueprint: &Blueprint,
    tls: TlsEnd,
    volume: &str,
    socket_directory: &Path,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(blueprint.image.clone()),
        cmd: Some(owned(tls.command())),
        env: Some(owned(&ENVIRONMENT)),
        labels: Some(labels.clone()),
        healthcheck: Some(health_check()),
        // Fast shutdown: sessions end, the data is checkpointed.
        stop_signal: Some("SIGINT".to_owned()),
        stop_timeout: Some(seconds(CONTAINER_STOP_GRACE)),
        network_disabled: Some(blueprint.network.is_none()),
        host_config: Some(host_config(blueprint, volume, socket_directory, labels)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(
    blueprint: &Blueprint,
    volume: &str,
    socket_directory: &Path,
    labels: HashMap<String, String>,
) -> HostConfig {
    let memory = signed(blueprint.memory_bytes);
    let mut data = mount(MountType::VOLUME, volume, DATA_TARGET);
    // Docker makes a volume that is not there: never one that is nobody's.
    data.volume_options = Some(MountVolumeOptions {
        labels: Some(labels),
        ..MountVolumeOptions::default()
    });
    HostConfig {
        mounts: Some(vec![
            data,
            mount(
                MountType::BIND,
                &socket_directory.to_string_lossy(),
                SOCKET_TARGET,
            ),
        ]),
        network_mode: Some(
            blueprint
                .network
                .clone()
                .unwrap_or_else(|| "none".to_owned()),
        ),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), CONTAINER_LOG_FILE_SIZE.to_owned()),
                ("max-file".to_owned(), CONTAINER_LOG_FILES.to_string()),
            ])),
        }),
        cap_drop: Some(owned(&["ALL"])),
        cap_add: Some(owned(&CAPABILITIES)),
        security_opt: Some(owned(&["no-new-privileges"])),
        pids_limit: Some(i64::from(CONTAINER_PIDS_MAX)),
        memory: Some(memory),
        // The same number: no swap on top of it.
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(blueprint.cpu_millis) * 1_000_000),
        shm_size: Some(signed(CONTAINER_SHM_BYTES)),
        ..HostConfig::default()
    }
}

fn health_check() -> HealthConfig {
    HealthConfig {
        test: Some(vec!["CMD-SHELL".to_owned(), READY_TEST.to_owned()]),
        interval: Some(nanoseconds(HEALTH_INTERVAL)),
        timeout: Some(nanoseconds(HEALTH_DEADLINE)),
        retries: Some(i64::from(HEALTH_RETRIES)),
        // Making the data, and recovery after a crash, are no ill health.
        start_period: Some(nanoseconds(SERVER_READY_DEADLINE)),
        start_interval: None,
    }
}

fn mount(kind: MountType, source: &str, target: &str) -> Mount {
    Mount {
        typ: Some(kind),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        ..Mount::default()
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn seconds(duration: Duration) -> i64 {
    signed(duration.as_secs())
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(network: Option<&str>) -> ContainerCreateBody {
        let blueprint = Blueprint {
            image: "postgres:18".to_owned(),
            memory_bytes: 1 << 29,
            cpu_millis: 1_500,
            network: network.map(str::to_owned),
        };
        container(
            &blueprint,
            TlsEnd::Router,
            "pgs-0-acme",
            Path::new("/s/sockets/acme"),
            HashMap::new(),
        )
    }

    #[test]
    fn has_no_network_unless_asked() {
        let host = |network| body(network).host_config.unwrap();
        assert_eq!(host(None).network_mode.as_deref(), Some("none"));
        assert_eq!(body(None).network_disabled, Some(true));
        assert_eq!(host(Some("lan")).network_mode.as_deref(), Some("lan"));
        assert_eq!(body(Some("lan")).network_disabled, Some(false));
    }

    #[test]
    fn is_confined() {
        let host = body(None).host_config.unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert!(!host.cap_add.unwrap().contains(&"SYS_ADMIN".to_owned()));
        assert_eq!(
            host.security_opt,
            Some(vec!["no-new-privileges".to_owned()])
        );
        assert_eq!(host.privileged, None);
        assert_eq!(
            (host.memory, host.memory_swap),
            (Some(1 << 29), Some(1 << 29))
        );
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert!(host.pids_limit.unwrap() > 0);
    }

    #[test]
    fn nothing_trusts_and_no_password_is_told() {
        let environment = body(None).env.unwrap().join("\n");
        assert!(!environment.contains("trust") && !environment.contains("POSTGRES_PASSWORD="));
        assert!(environment.contains("--auth-local=peer"));
    }

    #[test]
    fn mounts_the_volume_and_the_socket_directory() {
        let mounts = body(None).host_config.unwrap().mounts.unwrap();
        let pairs: Vec<_> = mounts
            .iter()
            .map(|mount| {
                (
                    mount.source.as_deref().unwrap(),
                    mount.target.as_deref().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            pairs,
            [
                ("pgs-0-acme", "/var/lib/postgresql"),
                ("/s/sockets/acme", "/var/run/postgresql")
            ]
        );
    }
}
