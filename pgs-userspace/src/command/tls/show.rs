//! `pgs tls show`: every certificate that clients are shown, from here or by a tenant's own server.

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::Value;
use serde_json::json;

use crate::cli::FormatArguments;
use crate::command::Context;
use crate::command::server_tls;
use crate::config::limits::DOCKER_CALLS_IN_FLIGHT_MAX;
use crate::error::Error;
use crate::output::table::Table;
use crate::server::shown_certificate;
use crate::tenant::id::TenantId;
use crate::tenant::registry::Registry;
use crate::tls::certificate::Certificate;
use crate::tls::certificate::Description;
use crate::tls::files::Pair;
use crate::tls::name::CertificateName;

/// One certificate, or why it is none.
struct Row {
    name: String,
    description: Option<Description>,
    problem: Option<String>,
    hint: Option<&'static str>,
}

pub(super) async fn run(context: &Context, arguments: FormatArguments) -> Result<(), Error> {
    let layout = super::layout(context)?;
    let kept: Vec<_> = layout.pairs.iter().map(|one| (kept(one), one.1)).collect();
    let shown = by_tenants(context).await?;
    if arguments.json {
        let kept: Vec<_> = kept
            .iter()
            .map(|(row, pair)| {
                let mut told = row.told("name");
                told["path"] = pair.certificate.to_string_lossy().into();
                told
            })
            .collect();
        let shown: Vec<_> = shown.iter().map(|row| row.told("tenant")).collect();
        let unusable: Vec<_> = layout
            .unusable
            .iter()
            .map(|(path, problem)| json!({ "path": path.to_string_lossy(), "problem": problem }))
            .collect();
        let all = json!({ "certificates": kept, "tenants": shown, "unusable": unusable });
        return context.printer.json(&all);
    }
    for (path, problem) in &layout.unusable {
        let path = path.display();
        context
            .printer
            .warning(&format!("`{path}` is not used: {problem}"));
    }
    if kept.is_empty() && shown.is_empty() {
        context.printer.note("there are no certificates");
        context
            .printer
            .hint("`pgs tls self-signed` makes one to develop with");
        return Ok(());
    }
    let mut table = Table::new(&["CERTIFICATE", "NAMES", "EXPIRES", "PROBLEM"]);
    for (row, _) in &kept {
        row.add_to(&mut table, &row.name);
    }
    for row in &shown {
        row.add_to(&mut table, &format!("tenant {}", row.name));
    }
    context.printer.line(&table.render())?;
    let rows = kept.iter().map(|(row, _)| row).chain(&shown);
    for hint in rows.filter_map(|row| row.hint) {
        context.printer.hint(hint);
    }
    Ok(())
}

/// One that the router shows.
fn kept((name, pair): (&CertificateName, &Pair)) -> Row {
    match Certificate::load(pair) {
        Ok(Certificate { description, .. }) => Row {
            name: name.to_string(),
            problem: super::problem(super::host(name), &description),
            description: Some(description),
            hint: None,
        },
        Err(error) => Row {
            name: name.to_string(),
            description: None,
            problem: Some(error.to_string()),
            hint: Some(error.hint()),
        },
    }
}

/// Those that tenants' own servers show, asked of the servers.
async fn by_tenants(context: &Context) -> Result<Vec<Row>, Error> {
    let registry = Registry::open(&context.directories)?;
    let tenants = server_tls::passed_through(context, &registry)?;
    let mut rows: Vec<_> = stream::iter(tenants)
        .map(|tenant| async move { by_tenant(context, &tenant).await })
        .buffer_unordered(DOCKER_CALLS_IN_FLIGHT_MAX)
        .collect()
        .await;
    rows.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(rows)
}

async fn by_tenant(context: &Context, tenant: &TenantId) -> Row {
    let directory = context.directories.socket_directory(tenant);
    let shown = shown_certificate(&directory).await;
    let described = shown
        .map_err(|error| error.to_string())
        .and_then(|der| Description::parse(&der));
    let name = tenant.to_string();
    match described {
        Ok(description) => Row {
            name,
            problem: super::problem(None, &description),
            description: Some(description),
            hint: None,
        },
        Err(problem) => Row {
            name,
            description: None,
            problem: Some(problem),
            hint: Some("`pgs restart <tenant>` lets a server listen for TLS that does not yet"),
        },
    }
}

impl Row {
    fn add_to(&self, table: &mut Table, name: &str) {
        let (names, expires) = match &self.description {
            Some(description) => (
                description.names.join(" "),
                super::date(description.not_after),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let problem = self.problem.as_deref().unwrap_or("-");
        table.row([name, &names, &expires, problem]);
    }

    /// For programs; `whose` says what the name is.
    fn told(&self, whose: &str) -> Value {
        let description = self.description.as_ref();
        json!({
            whose: self.name,
            "names": description.map(|description| &description.names),
            "expires": description.map(|description| super::date(description.not_after)),
            "self_signed": description.map(|description| description.self_signed),
            "problem": self.problem,
        })
    }
}
