//! What Docker, the registry and the router of this machine are like.

use std::net::TcpListener;

use crate::admin::client;
use crate::admin::client::AdminError;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::cli::tenant::IMAGE_DEFAULT;
use crate::command::Context;
use crate::command::doctor::Check;
use crate::command::doctor::privileges;
use crate::command::inventory;
use crate::command::server_tls;
use crate::command::url::PORT_DEFAULT;
use crate::config::limits::FREE_DISK_BYTES_MIN;
use crate::container::engine::Engine;
use crate::container::engine::EngineReport;
use crate::error::Error;
use crate::tenant::registry::Registry;

pub(super) async fn checks(context: &Context) -> Vec<Check> {
    let mut checks = router(context).await;
    // Without a state directory there is no registry, and looking must not make one.
    if context.directories.registry().exists() {
        checks.push(registry(context).await);
    }
    match engine(context).await {
        Ok((engine, report)) => {
            checks.push(docker(&report));
            checks.push(space(&report));
            checks.push(image(&engine).await);
        }
        Err(check) => checks.push(check),
    }
    checks
}

async fn engine(context: &Context) -> Result<(Engine, EngineReport), Check> {
    let fault = |error: Error| {
        let hint = error.hint().unwrap_or("see `docker info`").to_owned();
        Check::fault("docker", error.to_string(), hint)
    };
    let engine = Engine::connect(&context.directories)
        .await
        .map_err(|e| fault(e.into()))?;
    let report = engine.report().await.map_err(|e| fault(e.into()))?;
    Ok((engine, report))
}

fn docker(report: &EngineReport) -> Check {
    let EngineReport {
        version,
        api_version,
        storage,
        ..
    } = report;
    Check::good(
        "docker",
        format!("{version}, API {api_version}, storage {storage}"),
    )
}

fn space(report: &EngineReport) -> Check {
    const NAME: &str = "disk space";
    let root = &report.root;
    match report.free_bytes {
        Some(free) if free < FREE_DISK_BYTES_MIN => {
            let detail = format!("{} MiB free in `{root}`", free >> 20);
            Check::fault(NAME, detail, "`docker system df` shows what takes the room")
        }
        Some(free) => Check::good(NAME, format!("{} MiB free in `{root}`", free >> 20)),
        None => Check::good(NAME, format!("`{root}` cannot be looked at from here")),
    }
}

async fn image(engine: &Engine) -> Check {
    const NAME: &str = "image";
    let image = std::env::var("PGS_IMAGE").unwrap_or_else(|_| IMAGE_DEFAULT.to_owned());
    match engine.has_image(&image).await {
        Ok(true) => Check::good(NAME, format!("`{image}` is here")),
        Ok(false) => {
            let hint = format!("the first `pgs create` pulls it; or `docker pull {image}`");
            Check::warning(NAME, format!("`{image}` is not here"), hint)
        }
        Err(error) => Check::fault(NAME, error.to_string(), "see `docker info`"),
    }
}

async fn registry(context: &Context) -> Check {
    const NAME: &str = "tenants";
    let taken = match Registry::open(&context.directories) {
        Ok(registry) => inventory::take(context, &registry).await,
        Err(error) => Err(error.into()),
    };
    match taken {
        Ok(inventory) => {
            let ailing = inventory
                .entries
                .iter()
                .filter(|entry| entry.hint().is_some())
                .count();
            let detail = format!("{} tenants", inventory.entries.len());
            if ailing == 0 {
                return Check::good(NAME, detail);
            }
            Check::warning(
                NAME,
                format!("{detail}, {ailing} need attention"),
                "see `pgs list`",
            )
        }
        Err(error) => {
            let hint = error
                .hint()
                .unwrap_or("restore the registry from a backup")
                .to_owned();
            Check::fault(NAME, error.to_string(), hint)
        }
    }
}

async fn router(context: &Context) -> Vec<Check> {
    const NAME: &str = "router";
    let check = match client::ask(&context.directories.admin_socket(), &Request::Status).await {
        Ok(Response::Status(status)) => {
            let listen = status.listen.join(", ");
            let detail = format!("runs on {listen}, path {}", status.path);
            let mut checks = vec![Check::good(NAME, detail)];
            if let Some(held) = &status.privileges {
                checks.push(privileges::check_of_router(held));
                if any_is_passed_through(context) {
                    checks.push(privileges::check_of_passthrough(held));
                }
            }
            let cautions = status.configuration.cautions;
            // With what its command line said; the file alone is looked at before.
            checks.extend(
                (!cautions.is_empty()).then(|| {
                    Check::warning("router's configuration", "holds", cautions.join("; "))
                }),
            );
            return checks;
        }
        Ok(_) => Check::fault(
            NAME,
            "answers something else than was asked",
            "restart `pgs serve`",
        ),
        Err(AdminError::NotRunning { .. }) => match TcpListener::bind(("0.0.0.0", PORT_DEFAULT)) {
            Ok(_) => Check::good(NAME, format!("not running; port {PORT_DEFAULT} is free")),
            Err(error) => Check::warning(
                NAME,
                format!("not running; port {PORT_DEFAULT}: {error}"),
                "`ss -ltnp` shows who has it; `pgs serve --listen` takes another one",
            ),
        },
        Err(error) => {
            let hint = error.hint().unwrap_or("restart `pgs serve`").to_owned();
            Check::fault(NAME, error.to_string(), hint)
        }
    };
    vec![check]
}

/// Whether the TLS of any tenant is to pass through. A registry that cannot be read is another
/// check's fault.
fn any_is_passed_through(context: &Context) -> bool {
    context.directories.registry().exists()
        && Registry::open(&context.directories)
            .map_err(Error::from)
            .and_then(|registry| server_tls::passed_through(context, &registry))
            .is_ok_and(|tenants| !tenants.is_empty())
}
