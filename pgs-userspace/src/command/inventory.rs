//! What there is of every tenant: in the registry, and in Docker.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;

use crate::command::Context;
use crate::config::directories::Directories;
use crate::config::limits::ANSWERS_AT_ONCE_MAX;
use crate::container::answer;
use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::state::ContainerState;
use crate::error::Error;
use crate::tenant::id::TenantId;
use crate::tenant::record::Access;
use crate::tenant::record::Blueprint;
use crate::tenant::record::Lifecycle;
use crate::tenant::record::Tenant;
use crate::tenant::registry::Registry;

/// One tenant, or what is left of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    /// Its id.
    #[serde(serialize_with = "crate::tenant::record::as_text")]
    pub(super) tenant: TenantId,
    /// Where it stands.
    pub(super) standing: Standing,
    /// Whether clients may log in.
    pub(super) access: Access,
    /// How its container is.
    pub(super) container: ContainerState,
    /// Whether its volume is there; unknown where Docker does not answer.
    pub(super) has_data: Option<bool>,
    /// What its container is made from.
    pub(super) blueprint: Option<Blueprint>,
    /// Seconds since the epoch.
    pub(super) created_at: Option<u64>,
}

/// Where a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// A command is making it.
    Creating,
    /// It exists.
    Ready,
    /// A command is removing it.
    Removing,
    /// Only its data is there: `remove --keep-data`.
    DataKept,
    /// Its container is there, and the registry does not know it.
    Unregistered,
}

impl Entry {
    /// Where it stands and how it is, in one word.
    pub(super) fn state(&self) -> &'static str {
        match self.standing {
            Standing::Creating => "creating",
            Standing::Removing => "removing",
            Standing::DataKept => "data kept",
            Standing::Unregistered => "unregistered",
            Standing::Ready => self.container.as_str(),
        }
    }

    /// What to do about it, where something is to be done.
    pub(super) fn hint(&self) -> Option<String> {
        let tenant = &self.tenant;
        match (self.standing, self.container) {
            (Standing::Ready, ContainerState::Missing) if self.has_data == Some(false) => {
                Some(format!(
                    "container and data of `{tenant}` are gone: `pgs remove {tenant}` gives it up"
                ))
            }
            (Standing::Ready, ContainerState::Missing) => Some(format!(
                "the container of `{tenant}` was removed by hand: `pgs start {tenant}` makes it \
                 again around its data, `pgs remove {tenant}` removes the data too"
            )),
            (Standing::Ready, ContainerState::Unhealthy | ContainerState::Restarting) => Some(
                format!("`pgs logs {tenant} -n 20` may say what ails `{tenant}`"),
            ),
            (Standing::DataKept, _) => Some(format!(
                "data of `{tenant}` was kept: `pgs create {tenant} --adopt-data` takes it, `pgs \
                 remove {tenant}` deletes it"
            )),
            (Standing::Unregistered, _) => Some(format!(
                "the container of `{tenant}` is in no registry: `pgs remove {tenant} --keep-data`, \
                 then `pgs create {tenant} --adopt-data` makes a tenant of its data"
            )),
            _ => None,
        }
    }
}

/// What was found, and what kept Docker from being asked.
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) entries: Vec<Entry>,
    pub(super) engine: Result<Engine, ContainerError>,
}

/// Looks at the registry, and at Docker where it answers.
///
/// # Errors
/// The registry cannot be read, or Docker answers and fails.
pub(super) async fn take(context: &Context, registry: &Registry) -> Result<Inventory, Error> {
    let engine = Engine::connect(&context.directories).await;
    let docker = match &engine {
        Ok(engine) => Some((engine.states().await?, engine.volumes().await?)),
        Err(_) => None,
    };
    // After Docker: a tenant made in between is then in both, not in Docker alone.
    let tenants = registry.all()?;
    let mut entries = merge(tenants, docker);
    settle_all(&context.directories, &mut entries).await;
    Ok(Inventory { entries, engine })
}

/// All at once: after the host has started, all of them do.
async fn settle_all(directories: &Directories, entries: &mut [Entry]) {
    stream::iter(entries)
        .for_each_concurrent(ANSWERS_AT_ONCE_MAX, |entry| settle(directories, entry))
        .await;
}

/// Docker looks at a container's health every few seconds, and until it has done so for the first
/// time says that it starts. Whether the server takes clients is its own to say.
async fn settle(directories: &Directories, entry: &mut Entry) {
    if (entry.standing, entry.container) != (Standing::Ready, ContainerState::Starting) {
        return;
    }
    if answer::takes_clients(&directories.socket_directory(&entry.tenant)).await {
        entry.container = ContainerState::Healthy;
    }
}

fn merge(
    tenants: Vec<Tenant>,
    docker: Option<(BTreeMap<TenantId, ContainerState>, BTreeSet<TenantId>)>,
) -> Vec<Entry> {
    let is_known = docker.is_some();
    let (mut states, mut volumes) = docker.unwrap_or_default();
    let absent = if is_known {
        ContainerState::Missing
    } else {
        ContainerState::Unknown
    };
    let mut entries: Vec<Entry> = tenants
        .into_iter()
        .map(|tenant| Entry {
            standing: match tenant.lifecycle {
                Lifecycle::Creating => Standing::Creating,
                Lifecycle::Ready => Standing::Ready,
                Lifecycle::Removing => Standing::Removing,
            },
            container: states.remove(&tenant.id).unwrap_or(absent),
            has_data: {
                let has = volumes.remove(&tenant.id);
                is_known.then_some(has)
            },
            access: tenant.access,
            blueprint: Some(tenant.blueprint),
            created_at: Some(tenant.created_at),
            tenant: tenant.id,
        })
        .collect();
    let left_over = |tenant, standing, container, has_data| Entry {
        tenant,
        standing,
        access: Access::Disabled,
        container,
        has_data: Some(has_data),
        blueprint: None,
        created_at: None,
    };
    for (tenant, state) in states {
        let has_data = volumes.remove(&tenant);
        entries.push(left_over(tenant, Standing::Unregistered, state, has_data));
    }
    for tenant in volumes {
        entries.push(left_over(
            tenant,
            Standing::DataKept,
            ContainerState::Missing,
            true,
        ));
    }
    entries.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    entries
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;
    use crate::config::directories::SERVER_SOCKET_NAME;
    use crate::config::limits::ANSWER_DEADLINE;
    use crate::tenant::record::VolumeFate;

    fn id(text: &str) -> TenantId {
        TenantId::parse(text).unwrap()
    }

    fn tenant(name: &str) -> Tenant {
        let image = "postgres:18".to_owned();
        Tenant {
            id: id(name),
            lifecycle: Lifecycle::Ready,
            access: Access::Enabled,
            blueprint: Blueprint {
                image,
                memory_bytes: 1,
                cpu_millis: 1,
                network: None,
            },
            volume_fate: VolumeFate::Delete,
            created_at: 0,
        }
    }

    #[test]
    fn nothing_is_said_to_be_there_that_is_not() {
        let tenants = vec![tenant("gone"), tenant("lost"), tenant("well")];
        let states = BTreeMap::from([
            (id("well"), ContainerState::Healthy),
            (id("orphan"), ContainerState::Stopped),
        ]);
        let volumes = BTreeSet::from([id("well"), id("gone"), id("orphan"), id("kept")]);
        let entries = merge(tenants, Some((states, volumes)));
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (entry.tenant.as_str(), entry.state(), entry.hint().is_some()))
            .collect();
        assert_eq!(
            seen,
            [
                ("gone", "missing", true),
                ("kept", "data kept", true),
                ("lost", "missing", true),
                ("orphan", "unregistered", true),
                ("well", "healthy", false),
            ]
        );
        assert!(entries[2].hint().unwrap().contains("container and data"));
    }

    #[test]
    fn without_docker_nothing_is_claimed() {
        let entries = merge(vec![tenant("acme")], None);
        assert_eq!((entries[0].state(), entries[0].has_data), ("unknown", None));
    }

    #[tokio::test]
    async fn many_servers_that_do_not_answer_take_the_time_of_one() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), root.path().join("run"));
        let names: Vec<_> = (0..40).map(|number| format!("t{number}")).collect();
        let tenants = names.iter().map(|name| tenant(name)).collect();
        let states = names
            .iter()
            .map(|name| (id(name), ContainerState::Starting))
            .collect();
        let mut entries = merge(tenants, Some((states, BTreeSet::new())));
        let silent = entries.iter().map(|entry| {
            let socket = directories.socket_directory(&entry.tenant);
            fs::create_dir_all(&socket).unwrap();
            UnixListener::bind(socket.join(SERVER_SOCKET_NAME)).unwrap()
        });
        let _silent: Vec<_> = silent.collect();
        let begun = Instant::now();
        settle_all(&directories, &mut entries).await;
        assert!(begun.elapsed() < 5 * ANSWER_DEADLINE);
        assert!(entries.iter().all(|entry| entry.state() == "starting"));
    }
}
