//! A router that comes with another eBPF object than the one whose sessions it goes on with.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::belongings::descriptors;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;

use super::LIMIT;
use super::SETTLING;
use super::log_in;
use super::require_kernel;
use super::seen;
use crate::drain::keeper_of;
use crate::drain::kill;

/// Of one session a keeper has client, backend and private socket.
const SESSION_DESCRIPTORS: usize = 3;

/// What the router says of the object that its sessions use, where it is not its own.
fn older_object(router: &Router) -> anyhow::Result<Option<String>> {
    let status = router.status()?;
    let survival = status.get("survival").context("no survival")?;
    let object = survival.get("older_ebpf_object").context("no object")?;
    Ok(object.as_str().map(str::to_owned))
}

/// Another object that does the same: the loader does not mind a byte behind the end.
fn other_object(directory: &Path) -> anyhow::Result<String> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgs-ebpf/prebuilt/pgs.bpf.o");
    let mut object = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    object.push(0);
    let path = directory.join("other.bpf.o");
    fs::write(&path, object)?;
    path.into_os_string().into_string().ok().context("a path")
}

/// Sessions go on with the programs that they began with, which is said; once there is none, the
/// next router uses its own.
pub(super) fn a_router_with_another_ebpf_object(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let login = stage.alpha()?;
    let mut first = stage.installation()?.second_router("older-object")?;
    let own = first.pgs_json(&["version"])?;
    let own = own["ebpf_object_sha256"].as_str().context("no digest")?;
    ensure!(older_object(&first)?.is_none());
    let (mut old, _) = log_in(&first, login)?;
    ensure!(old.query_value("select 1")? == "1");
    // The answer may be here before the router has let go of it.
    thread::sleep(SETTLING);
    kill(&mut first)?;

    let other = other_object(first.run_directory())?;
    let environment = [("PGS_EBPF_OBJECT", other.as_str())];
    let path = ["--path", stage.path().as_str()];
    let mut second = first.successor_in("second.log", &environment, &path)?;
    let older = older_object(&second)?;
    ensure!(older.as_deref() == Some(&own[..16]), "{older:?}, not {own}");
    ensure!(second.pgs(&["status"])?.contains(&own[..16]));
    ensure!(second.log().contains("another eBPF object"));
    let (mut new, _) = log_in(&second, login)?;
    for wire in [&mut old, &mut new] {
        ensure!(wire.query_value("select 2")? == "2");
    }
    ensure!(seen(&second, login)?.len() == 2);
    drop((old, new));
    process::eventually("no session is listed", LIMIT, || {
        Ok(second.sessions(&login.user)?.is_empty().then_some(()))
    })?;
    kill(&mut second)?;

    let mut third = second.successor_in("third.log", &environment, &path)?;
    let older = older_object(&third)?;
    ensure!(older.is_none(), "{older:?}");
    let (mut wire, _) = log_in(&third, login)?;
    ensure!(wire.query_value("select 3")? == "3");
    ensure!(seen(&third, login)?.len() == 1);

    // Its session ends while there is no router: then there is none that needs its object.
    let keeper = keeper_of(&third)?;
    let before = descriptors(keeper)?;
    kill(&mut third)?;
    drop(wire);
    process::eventually("the keeper lets go of the session", LIMIT, || {
        Ok((descriptors(keeper)? + SESSION_DESCRIPTORS <= before).then_some(()))
    })?;
    let fourth = third.successor("fourth.log", &path)?;
    let older = older_object(&fourth)?;
    ensure!(older.is_none(), "{older:?}");
    Ok(())
}
