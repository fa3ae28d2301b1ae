//! TLS that one tenant requires, and the oldest version that is spoken.

use std::fs;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::stage::Stage;
use pgs_tests::trust;
use rustls::version::TLS12;
use rustls::version::TLS13;

use super::Ground;
use super::TENANT;
use super::serve_as_it_is;
use super::with_tls;

fn refusal_in_the_clear(ground: &Ground<'_>) -> anyhow::Result<String> {
    let mut wire = ground.connect()?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", TENANT)]))?;
    let message = wire.message()?;
    let state = message.sqlstate().context("not refused")?;
    let field = |code| message.field(code).unwrap_or_default();
    Ok(format!("{state} {} {}", field(b'M'), field(b'H')))
}

pub(super) fn required_by_one_tenant(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        let other = ground.installation.create_tenant("open")?;
        ground.connect()?.log_in(ground.tenant.login())?;
        ground.router.pgs(&["set", TENANT, "tls=required"])?;
        let told = refusal_in_the_clear(ground)?;
        ensure!(told.starts_with("28000 TLS is required"), "{told}");
        ensure!(told.contains("sslmode=require"), "{told}");
        ground.log_in()?;
        ground.named()?.log_in(ground.tenant.login())?;
        ground.connect()?.log_in(other.login())?;
        // Shut out, it says nothing of what it wants.
        ground.router.pgs(&["disable", TENANT])?;
        let told = refusal_in_the_clear(ground)?;
        ensure!(told.starts_with("28000 no access"), "{told}");
        ground.router.pgs(&["enable", TENANT])?;
        ground.router.pgs(&["set", TENANT, "--unset", "tls"])?;
        ground.connect()?.log_in(ground.tenant.login())?;
        Ok(())
    })
}

pub(super) fn version_min(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        let with = |ground: &Ground<'_>, version| -> anyhow::Result<()> {
            let session = trust::client_that(Some("localhost"), None, &[version], None)?;
            let mut wire = ground.granted()?.secure(session)?;
            wire.log_in(ground.tenant.login()).map(drop)
        };
        with(ground, &TLS12).context("1.2 by default")?;
        with(ground, &TLS13).context("1.3 by default")?;
        let file = ground.installation.scratch("state/pgs.toml");
        fs::write(file, "[tls]\nversion_min = \"1.3\"\n")?;
        let strict = Ground {
            router: serve_as_it_is(ground.installation, "strict-run", &[])?,
            tenant: ground.installation.create_tenant("other")?,
            issued: ground.issue("unused.test")?,
            installation: ground.installation,
        };
        with(&strict, &TLS13).context("1.3 where it is required")?;
        let failed = with(&strict, &TLS12).err().context("1.2 was taken")?;
        let failed = format!("{failed:#}");
        ensure!(failed.contains("ProtocolVersion"), "{failed}");
        Ok(())
    })
}
