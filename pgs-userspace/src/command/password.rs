//! `pgs password`, and where a password comes from.

use serde_json::json;
use tokio::task::spawn_blocking;

use crate::cli::tenant::PasswordArguments;
use crate::cli::tenant::PasswordCommandArguments;
use crate::command::Context;
use crate::command::lock_ready;
use crate::command::reconcile;
use crate::container::engine::Engine;
use crate::error::Error;
use crate::error::Kind;
use crate::tenant::id::TenantId;
use crate::tenant::password::Password;
use crate::tenant::registry::Registry;

/// A password and whether its owner knows it already.
pub(super) struct Chosen {
    pub(super) password: Password,
    pub(super) generated: bool,
}

/// The password that was given, else a new random one. Who gives it may take long to: what waits
/// for that is a thread of its own, so that a signal is heard meanwhile.
pub(super) async fn choose(arguments: &PasswordArguments) -> Result<Chosen, Error> {
    let given = match (&arguments.password, arguments.password_file.clone()) {
        (Some(text), _) => Some(Password::parse(text)?),
        (None, Some(path)) => {
            let read = spawn_blocking(move || Password::read(&path)).await;
            Some(read.map_err(|error| Error::new(Kind::Internal, error.to_string()))??)
        }
        (None, None) => None,
    };
    Ok(match given {
        Some(password) => Chosen {
            password,
            generated: false,
        },
        None => Chosen {
            password: Password::generate(),
            generated: true,
        },
    })
}

/// Gives a tenant's role a new password. Sessions that are connected go on.
pub(super) async fn run(
    context: &Context,
    arguments: PasswordCommandArguments,
) -> Result<(), Error> {
    let tenant = TenantId::parse(&arguments.tenant)?;
    let Chosen {
        password,
        generated,
    } = choose(&arguments.password).await?;
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    let (_lock, _) = lock_ready(context, &registry, &tenant).await?;
    let engine = Engine::connect(&context.directories).await?;
    engine
        .change_password(&tenant, &password.scram_verifier())
        .await?;
    let shown = generated.then(|| password.reveal());
    if arguments.format.json {
        return context
            .printer
            .json(&json!({ "tenant": tenant.as_str(), "password": shown }));
    }
    context
        .printer
        .note(&format!("tenant `{tenant}` has a new password"));
    match shown {
        Some(password) => {
            context.printer.line(password)?;
            context.printer.hint("keep it now: it is not shown again");
            Ok(())
        }
        None => Ok(()),
    }
}
