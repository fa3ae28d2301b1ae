//! `pgs url`.

use serde_json::json;

use crate::admin::client;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::cli::tenant::UrlArguments;
use crate::command::Context;
use crate::command::ready_tenant;
use crate::config::listen::ListenOn;
use crate::error::Error;
use crate::error::Kind;
use crate::tenant::id::TenantId;
use crate::tenant::registry::Registry;

/// PostgreSQL's own port.
pub(super) const PORT_DEFAULT: u16 = 5432;

/// Prints by what URL a tenant's clients connect. Its password is not known here.
pub(super) async fn run(context: &Context, arguments: UrlArguments) -> Result<(), Error> {
    let tenant = TenantId::parse(&arguments.tenant)?;
    check_host(&arguments.host)?;
    ready_tenant(&Registry::open(&context.directories)?, &tenant)?;
    let port = match arguments.port {
        Some(port) => port,
        None => router_port(context).await,
    };
    let url = of(&tenant, &arguments.host, port);
    if arguments.format.json {
        let shown = json!({ "tenant": tenant.as_str(), "url": url });
        return context.printer.json(&shown);
    }
    context.printer.line(&url)
}

/// The URL: libpq's form, `postgresql://user@host:port/database`.
pub(super) fn of(tenant: &TenantId, host: &str, port: u16) -> String {
    // An IPv6 address has colons of its own.
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    format!("postgresql://{tenant}@{host}:{port}/{tenant}")
}

/// The port that the running router listens on, else PostgreSQL's own.
pub(super) async fn router_port(context: &Context) -> u16 {
    match client::ask(&context.directories.admin_socket(), &Request::Status).await {
        Ok(Response::Status(status)) => status
            .listen
            .first()
            .and_then(|listen| Some(listen.parse::<ListenOn>().ok()?.address.port()))
            .unwrap_or(PORT_DEFAULT),
        _ => PORT_DEFAULT,
    }
}

fn check_host(host: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    if !host.is_empty() && host.chars().all(fits) {
        return Ok(());
    }
    let message = format!("{host:?} is no host name and no address");
    Err(Error::new(Kind::Usage, message).with_hint("write `db.example.com` or `192.0.2.7`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_user_and_database_and_no_password() {
        let acme = TenantId::parse("acme").unwrap();
        assert_eq!(
            of(&acme, "localhost", 5432),
            "postgresql://acme@localhost:5432/acme"
        );
        assert_eq!(of(&acme, "::1", 6000), "postgresql://acme@[::1]:6000/acme");
    }

    #[test]
    fn a_host_cannot_carry_anything_else() {
        for wrong in ["", "a b", "a/b", "a@b", "a?b", "a\n"] {
            assert!(check_host(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_host("db.example.com").is_ok() && check_host("fe80::1").is_ok());
    }
}
