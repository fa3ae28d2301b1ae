//! `pgs tls`.

mod show;

use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::tls::SelfSignedArguments;
use crate::cli::tls::SetArguments;
use crate::cli::tls::TlsArguments;
use crate::cli::tls::TlsVerb;
use crate::command::Context;
use crate::command::server_tls;
use crate::config::limits::CERTIFICATE_EXPIRY_WARNING;
use crate::error::Error;
use crate::error::Kind;
use crate::error::RUN_AS_ROOT;
use crate::tls::certificate::Certificate;
use crate::tls::certificate::CertificateError;
use crate::tls::certificate::Description;
use crate::tls::files;
use crate::tls::files::Layout;
use crate::tls::files::Pair;
use crate::tls::name::CertificateName;
use crate::tls::self_signed;

/// Works on the files alone, but for a tenant's own: a running router notices what has changed.
pub(super) async fn run(context: &Context, arguments: &TlsArguments) -> Result<(), Error> {
    match &arguments.verb {
        TlsVerb::Set(arguments) => set(context, arguments).await,
        TlsVerb::Show(arguments) => show::run(context, *arguments).await,
        TlsVerb::SelfSigned(arguments) => self_sign(context, arguments),
    }
}

async fn set(context: &Context, arguments: &SetArguments) -> Result<(), Error> {
    if let Some(tenant) = &arguments.tenant {
        let (certificate, pems) = Certificate::import(&pair(arguments))?;
        let hint = server_tls::install(context, tenant, &certificate, pems).await?;
        let problem = problem(None, &certificate.description);
        if arguments.format.json {
            let installed = json!({ "tenant": tenant, "problem": problem });
            return context.printer.json(&installed);
        }
        context.printer.note(&format!(
            "the server of tenant `{tenant}` has the certificate"
        ));
        if let Some(hint) = hint {
            context.printer.hint(&hint);
        }
        if let Some(problem) = problem {
            context.printer.warning(&format!("it is {problem}"));
        }
        return Ok(());
    }
    let name = match &arguments.name {
        Some(name) => CertificateName::host(name)
            .map_err(|error| Error::new(Kind::Usage, error.to_string()))?,
        None => CertificateName::Default,
    };
    let (certificate, [certificate_pem, key_pem]) = Certificate::import(&pair(arguments))?;
    let installed = install(context, &name, &certificate_pem, &key_pem)?;
    let problem = problem(host(&name), &certificate.description);
    if arguments.format.json {
        return context.printer.json(&json!({
            "name": name.to_string(),
            "path": installed.certificate.to_string_lossy(),
            "problem": problem,
        }));
    }
    context.printer.note(&format!(
        "certificate `{name}` is installed as `{}`",
        installed.certificate.display()
    ));
    if let Some(problem) = problem {
        context.printer.warning(&format!("it is {problem}"));
    }
    Ok(())
}

fn pair(arguments: &SetArguments) -> Pair {
    Pair {
        certificate: arguments.certificate.clone(),
        key: arguments.key.clone(),
    }
}

fn self_sign(context: &Context, arguments: &SelfSignedArguments) -> Result<(), Error> {
    let name = CertificateName::Default;
    if layout(context)?.pairs.contains_key(&name) && !arguments.replace {
        let error = Error::new(Kind::Exists, "there is a default certificate already");
        return Err(error.with_hint("`pgs tls show` describes it; `--replace` replaces it"));
    }
    let made = self_signed::generate(&arguments.name)
        .map_err(|error| Error::new(Kind::Usage, format!("cannot make a certificate: {error}")))?;
    let (certificate, key) = (made.certificate_pem.as_bytes(), made.key_pem.as_bytes());
    let installed = install(context, &name, certificate, key)?;
    if arguments.format.json {
        return context.printer.json(&json!({
            "name": name.to_string(),
            "path": installed.certificate.to_string_lossy(),
            "names": arguments.name,
        }));
    }
    context.printer.note(&format!(
        "a self-signed certificate for {} is the default now",
        arguments.name.join(", ")
    ));
    context.printer.hint(&format!(
        "clients that trust it: `sslmode=verify-full sslrootcert={}`",
        installed.certificate.display()
    ));
    Ok(())
}

/// What clients may object to, now or soon.
fn problem(host: Option<&str>, certificate: &Description) -> Option<String> {
    let now = SystemTime::now();
    if let Some(problem) = certificate.problem(now) {
        return Some(problem.to_owned());
    }
    if certificate
        .problem(now + CERTIFICATE_EXPIRY_WARNING)
        .is_some()
    {
        return Some("about to expire".to_owned());
    }
    host.filter(|host| !certificate.covers(host))
        .map(|host| format!("not for `{host}`"))
}

/// The host name that a certificate is kept under.
fn host(name: &CertificateName) -> Option<&str> {
    match name {
        CertificateName::Default => None,
        CertificateName::Host(host) => Some(host),
    }
}

fn layout(context: &Context) -> Result<Layout, Error> {
    let directory = context.directories.certificates();
    Layout::read(&directory).map_err(|error| failed("read", &directory, &error))
}

fn install(
    context: &Context,
    name: &CertificateName,
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<Pair, Error> {
    let directory = context.directories.certificates();
    files::install(&directory, name, certificate_pem, key_pem)
        .map_err(|error| failed("write in", &directory, &error))
}

fn failed(act: &str, path: &Path, error: &io::Error) -> Error {
    let message = format!("cannot {act} `{}`: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::new(Kind::PermissionDenied, message).with_hint(RUN_AS_ROOT)
        }
        io::ErrorKind::StorageFull => Error::new(Kind::NoSpace, message),
        _ => Error::new(Kind::Internal, message),
    }
}

fn date(time: SystemTime) -> String {
    // Only a year beyond 9999 cannot be written.
    let written = OffsetDateTime::from(time).format(&Rfc3339);
    written.unwrap_or_else(|_| "after the year 9999".to_owned())
}

impl From<CertificateError> for Error {
    fn from(error: CertificateError) -> Self {
        Self::new(error_kind(&error), error.to_string()).with_hint(error.hint())
    }
}

fn error_kind(error: &CertificateError) -> Kind {
    match error {
        CertificateError::Read { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            // Another file has to be named, as for `create --init`.
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory => Kind::Usage,
            _ => Kind::Internal,
        },
        _ => Kind::Usage,
    }
}
