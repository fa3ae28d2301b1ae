//! `pgs metrics`: what the router has counted, in the text format of Prometheus.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use std::fmt::Display;

use crate::admin::request::RouterStatus;
use crate::admin::request::TenantReport;
use crate::command::Context;
use crate::command::status::router;
use crate::error::Error;

/// Prints them. A router that does not run is a finding too.
pub(super) async fn run(context: &Context) -> Result<(), Error> {
    let status = router(context).await?;
    context.printer.bytes(render(status.as_ref()).as_bytes())
}

/// The text. Label values are tenants' ids and names of this program, and nothing that a client
/// could choose.
fn render(status: Option<&RouterStatus>) -> String {
    let mut text = Text::default();
    text.family("pgs_up", "gauge", "whether `pgs serve` answers");
    text.sample("pgs_up", &[], u8::from(status.is_some()));
    let Some(status) = status else {
        return text.0;
    };
    of_the_router(&mut text, status);
    of_the_tenants(&mut text, status);
    text.0
}

fn of_the_router(text: &mut Text, status: &RouterStatus) {
    text.family(
        "pgs_info",
        "gauge",
        "which version serves, and by what path",
    );
    let labels = [("version", &*status.version), ("path", &*status.path)];
    text.sample("pgs_info", &labels, 1);
    of_the_path(text, status);
    text.family("pgs_uptime_seconds", "gauge", "since the router began");
    text.sample("pgs_uptime_seconds", &[], status.uptime_seconds);
    let summary = "whether the configuration that was read last could be taken over";
    text.family("pgs_configuration_good", "gauge", summary);
    let good = status.configuration.error.is_none();
    text.sample("pgs_configuration_good", &[], u8::from(good));
    let summary = "keys of the configuration file that wait for a restart";
    text.family("pgs_configuration_keys_waiting", "gauge", summary);
    let waiting = status.configuration.needs_restart.len();
    text.sample("pgs_configuration_keys_waiting", &[], waiting);
    let (refusals, counters): (Vec<_>, Vec<_>) = status
        .counters
        .iter()
        .partition(|(name, _)| name.starts_with(REFUSED));
    for (counter, count) in counters {
        let name = format!("pgs_{counter}_total");
        text.family(&name, "counter", &counter.replace('_', " "));
        text.sample(&name, &[], count);
    }
    let summary = "clients that the router itself has refused";
    text.family("pgs_refusals_total", "counter", summary);
    for (counter, count) in refusals {
        let reason = counter.trim_start_matches(REFUSED);
        text.sample("pgs_refusals_total", &[("reason", reason)], count);
    }
}

/// Which path there is, and why.
fn of_the_path(text: &mut Text, status: &RouterStatus) {
    let summary = "whether every session is relayed although the kernel path was wanted, and why";
    text.family("pgs_path_fallback", "gauge", summary);
    if let Some(cause) = &status.path_fallback {
        text.sample("pgs_path_fallback", &[("reason", cause)], 1);
    }
    let summary = "whether only results go through the kernel, and queries do not";
    text.family("pgs_path_one_way", "gauge", summary);
    let one_way = status.path_one_way.is_some();
    text.sample("pgs_path_one_way", &[], u8::from(one_way));
    let summary = "whether the kernel does what the kernel path needs, as tried at the start";
    text.family("pgs_canary_passed", "gauge", summary);
    for canary in &status.canaries {
        let labels = [("canary", &*canary.name)];
        text.sample("pgs_canary_passed", &labels, u8::from(canary.passed));
    }
}

/// How `pgs status` names counters of refusals.
const REFUSED: &str = "refused_";

/// A name, what it is, and a tenant's value.
type Count = (&'static str, &'static str, fn(&TenantReport) -> u64);

const COUNTS: &[Count] = &[
    ("pgs_tenant_sessions_total", "sessions that began", |one| {
        one.sessions_begun
    }),
    (
        "pgs_tenant_logins_failed_total",
        "logins that the tenant's server has refused",
        |one| one.logins_failed,
    ),
    (
        "pgs_tenant_cancels_routed_total",
        "requests to cancel that were delivered",
        |one| one.cancels_routed,
    ),
];

fn of_the_tenants(text: &mut Text, status: &RouterStatus) {
    let tenants = &status.tenants;
    let summary = "live sessions, by how their bytes travel";
    text.family("pgs_tenant_sessions_live", "gauge", summary);
    for (tenant, report) in tenants {
        for path in ["startup", "kernel", "relay", "tls", "passthrough"] {
            let count = report.sessions.get(path).copied().unwrap_or(0);
            let labels = [("tenant", &**tenant), ("path", path)];
            text.sample("pgs_tenant_sessions_live", &labels, count);
        }
    }
    for (name, summary, value) in COUNTS {
        text.family(name, "counter", summary);
        for (tenant, report) in tenants {
            text.sample(name, &[("tenant", tenant)], value(report));
        }
    }
    let summary = "clients of a tenant that the router itself has refused";
    text.family("pgs_tenant_refusals_total", "counter", summary);
    for (tenant, report) in tenants {
        for (reason, count) in &report.refusals {
            let labels = [("tenant", &**tenant), ("reason", reason)];
            text.sample("pgs_tenant_refusals_total", &labels, count);
        }
    }
    let summary = "bytes moved, by the kernel alone or by the router";
    text.family("pgs_tenant_bytes_total", "counter", summary);
    for (tenant, report) in tenants {
        for (by, direction, bytes) in [
            ("kernel", "to_backend", report.kernel_to_backend),
            ("kernel", "to_client", report.kernel_to_client),
            ("router", "to_backend", report.router_to_backend),
            ("router", "to_client", report.router_to_client),
        ] {
            let labels = [("tenant", &**tenant), ("by", by), ("direction", direction)];
            text.sample("pgs_tenant_bytes_total", &labels, bytes);
        }
    }
}

/// What is rendered so far.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, summary: &str) {
        self.line(format_args!("# HELP {name} {summary}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.push_str(&format!("{line}\n"));
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_that_does_not_run_is_down() {
        assert!(render(None).ends_with("\npgs_up 0\n"));
    }

    #[test]
    fn no_label_can_end_its_quotes() {
        let mut text = Text::default();
        text.sample("a", &[("b", "c\"} 1\nd\\")], 2);
        assert_eq!(text.0, "a{b=\"c\\\"} 1\\nd\\\\\"} 2\n");
    }
}
