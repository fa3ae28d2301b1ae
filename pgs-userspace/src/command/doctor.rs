//! `pgs doctor`.

use serde::Serialize;
use serde_json::json;

use crate::admin::request::CanaryReport;
use crate::cli::FormatArguments;
use crate::command::Context;
use crate::command::canaries;
use crate::command::configuration;
use crate::datapath;
use crate::datapath::canary::Results;
use crate::datapath::findings::Findings;
use crate::error::Error;
use crate::error::Kind;
use crate::output::table::Table;

mod host;
mod privileges;
mod tenants;

/// Whether one thing is as pgs needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at.
    pub(super) name: &'static str,
    /// How it is.
    pub(super) verdict: Verdict,
    /// What was seen.
    pub(super) detail: String,
    /// The way out, where it is not well.
    pub(super) hint: Option<String>,
}

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// pgs works, but slower or with less room.
    Warning,
    /// pgs does not work.
    Fault,
}

impl Check {
    fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Good,
            detail: detail.into(),
            hint: None,
        }
    }

    fn warning(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        let (detail, hint) = (detail.into(), Some(hint.into()));
        Self {
            name,
            verdict: Verdict::Warning,
            detail,
            hint,
        }
    }

    fn fault(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fault,
            ..Self::warning(name, detail, hint)
        }
    }
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// Looks at this machine and says what keeps pgs from working well.
pub(super) async fn run(context: &Context, arguments: FormatArguments) -> Result<(), Error> {
    let mut checks = host::checks(&context.directories);
    checks.push(privileges::check());
    checks.push(configuration_check(context));
    let findings = datapath::examine();
    checks.extend(datapath_checks(&findings));
    checks.extend(tenants::checks(context).await);
    if arguments.json {
        let took = findings.canaries.as_ref().map(Results::milliseconds);
        context
            .printer
            .json(&json!({ "checks": checks, "canaries_milliseconds": took }))?;
    } else {
        show(context, &checks)?;
    }
    let faults = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fault)
        .count();
    if faults == 0 {
        return Ok(());
    }
    Err(Error::new(
        Kind::Diagnosis,
        format!("checks that found a fault: {faults}"),
    ))
}

/// Good, but for what is hardly ever meant so.
fn cautious_check(name: &'static str, detail: String, cautions: &[String]) -> Check {
    match cautions {
        [] => Check::good(name, detail),
        cautions => Check::warning(name, detail, cautions.join("; ")),
    }
}

/// Whether the configuration file can be used, and which it is.
fn configuration_check(context: &Context) -> Check {
    let name = "configuration";
    match configuration::read(context) {
        Ok((file, effective)) => {
            let file = file.map(|file| file.display().to_string());
            let file = file.unwrap_or_else(|| "no file: the defaults hold".to_owned());
            cautious_check(name, file, &effective.configuration().cautions())
        }
        Err(error) => Check::fault(
            name,
            error.to_string(),
            error
                .hint()
                .unwrap_or("`pgs config check` says what is wrong with it"),
        ),
    }
}

/// What the data path's canaries find on this kernel.
fn datapath_checks(findings: &Findings) -> Vec<Check> {
    const HINT: &str = "sessions are relayed instead";
    let mut checks = Vec::new();
    if let Some(results) = &findings.canaries {
        let reports: Vec<_> = results.findings.iter().map(CanaryReport::from).collect();
        let found = results.findings.iter().map(|canary| match canary.passed {
            true => Check::good(canary.name, &canary.detail),
            false => Check::warning(canary.name, &canary.detail, HINT),
        });
        checks.extend(found);
        let summary = canaries::summary(&reports, Some(results.milliseconds()));
        let summary = summary.unwrap_or_default();
        checks.push(match results.failed().next() {
            None => Check::good("canaries", summary),
            Some(_) => Check::warning("canaries", summary, HINT),
        });
    }
    checks.push(match findings.reason() {
        None => match &findings.one_way {
            None => Check::good("kernel path", "works here, in both directions"),
            Some(reason) => Check::warning(
                "kernel path",
                format!("from backends to clients only: {reason}"),
                "CAP_PERFMON and a kernel with BTF (`CONFIG_DEBUG_INFO_BTF`) make it both ways",
            ),
        },
        Some(reason) => Check::warning(
            "kernel path",
            reason,
            "sessions are relayed instead; Linux 6.16 or newer, root, and eBPF make it work",
        ),
    });
    checks
}

fn show(context: &Context, checks: &[Check]) -> Result<(), Error> {
    let mut table = Table::new(&["CHECK", "VERDICT", "DETAIL"]);
    for check in checks {
        table.row([check.name, check.verdict.as_str(), &check.detail]);
    }
    context.printer.line(&table.render())?;
    for check in checks {
        if let Some(hint) = &check.hint {
            context.printer.hint(&format!("{}: {hint}", check.name));
        }
    }
    Ok(())
}
