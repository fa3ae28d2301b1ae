//! `cargo xtask demo`: from nothing to a query that travelled through the kernel, and then at hand
//! to be tried until Ctrl-C.

mod installation;
mod kill;
mod router;
mod session;
mod signals;

use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose};
use crate::{process, workspace};
use anyhow::{Context, Result};
use clap::Args;
use installation::Installation;
use router::Router;
use session::OpenSession;
use signals::Interrupts;
use std::path::PathBuf;

/// The tenant that is shown.
const TENANT: &str = "acme";

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Port to listen on [default: 5432, or a free one if that is taken]
    #[arg(long)]
    port: Option<u16>,
    /// End after the showing instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// Also kill the router while pgbench works, start it again, and show that nothing was lost
    #[arg(long)]
    kill: bool,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    // From here on Ctrl-C ends the demo in order, wherever it is.
    let interrupts = Interrupts::catch()?;
    let machine = setup::ensure(Purpose::Demo)?;
    let image = machine.image.context("set-up for the demo left no image")?;
    let binary = build()?;
    let installation = Installation::new(binary, image)?;

    heading("demo");
    let mut router = Router::start(&installation, args.port)?;
    let shown = show(&installation, &mut router, &interrupts, args);
    let stopped = stop(&installation, router);
    shown.and(stopped)
}

fn build() -> Result<PathBuf> {
    heading("build");
    let step = Step::new("pgs");
    step.doing("release build (minutes the first time, then seconds)");
    let mut command = process::cargo();
    command.current_dir(workspace::root()).args([
        "build",
        "--release",
        "--package",
        "pgs-userspace",
    ]);
    process::followed(&step, &mut command)?;
    let binary = workspace::target().join("release/pgs");
    step.done(binary.display());
    Ok(binary)
}

fn show(
    installation: &Installation,
    router: &mut Router,
    interrupts: &Interrupts,
    args: &DemoArgs,
) -> Result<()> {
    let password = installation.ensure_tenant(TENANT)?;
    heading("the tenant: pgs list");
    installation.show(&["list"])?;

    heading("a query through the port");
    session::query(
        router.port(),
        &password,
        "SELECT current_user, current_database(), split_part(version(), ' (', 1) AS server",
    )?;

    heading("a session and its bytes: pgs sessions");
    let open = OpenSession::start(router.port(), &password)?;
    let sight = open.sight(installation)?;
    installation.show(&["sessions"])?;
    open.close()?;
    report::line("");
    sight.explain(&installation.router_reason());

    if args.kill {
        heading("the router is killed while pgbench works");
        kill::show(installation, router, &password)?;
    }

    heading("to try it yourself");
    let port = router.port();
    report::line(format_args!(
        "  psql 'postgresql://{TENANT}:{password}@127.0.0.1:{port}/{TENANT}'"
    ));
    report::line(format_args!("  {}", installation.as_typed()));
    report::line(format_args!(
        "  the router's log: {}",
        router.log().display()
    ));
    if !args.once {
        report::line("\nServing until Ctrl-C.");
        interrupts.wait_while(|| router.is_running())?;
    }
    Ok(())
}

/// Both are stopped, even if one of them does not want to.
fn stop(installation: &Installation, router: Router) -> Result<()> {
    heading("stopping");
    let step = Step::new("router");
    let drained = router.stop();
    if drained.is_ok() {
        step.done("drained and ended");
    }
    let step = Step::new("tenants");
    installation.run(&["stop"])?;
    step.done("stopped; the next demo starts them again");
    drained
}
