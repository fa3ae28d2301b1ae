//! Certificates that change while the router serves.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process::eventually;
use pgs_tests::stage::Stage;

use super::Ground;
use super::NOTICED;
use super::install;
use super::with_tls;

pub(super) fn certificates_change(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        let mut before = ground.log_in()?;
        ensure!(ground.shown(None)? == *ground.issued.der);
        replaced(ground).context("replaced")?;
        bad(ground).context("bad")?;
        by_name(ground).context("by name")?;
        linked_in(ground).context("linked in")?;
        ensure!(
            before.query_value("select 1")? == "1",
            "a session begun before goes on"
        );
        none_left(ground).context("none left")
    })
}

/// Waits until a client that asks for that name is shown this.
fn becomes(ground: &Ground<'_>, name: Option<&str>, der: &[u8]) -> anyhow::Result<()> {
    eventually("another certificate is shown", NOTICED, || {
        Ok((ground.shown(name)? == der).then_some(()))
    })
}

fn replaced(ground: &Ground<'_>) -> anyhow::Result<()> {
    let next = ground.issue("next.test")?;
    install(ground.installation, &["--default"], &next)?;
    becomes(ground, None, &next.der)?;
    becomes(ground, Some("elsewhere.test"), &next.der)
}

fn bad(ground: &Ground<'_>) -> anyhow::Result<()> {
    let good = ground.shown(None)?;
    let files = ground.certificates().join("default");
    let other = ground.issue("other.test")?;
    let refused = install(
        ground.installation,
        &["--default"],
        &super::Issued {
            key: files.join("privkey.pem"),
            ..ground.issue("mixed.test")?
        },
    );
    let refused = format!(
        "{:#}",
        refused.err().context("a foreign key was installed")?
    );
    ensure!(refused.contains("does not belong"), "{refused}");
    // Behind the command's back: a certificate without its key, then nonsense.
    let certificate = files.join("fullchain.pem");
    for content in [fs::read(&other.certificate)?, b"nonsense".to_vec()] {
        fs::write(&certificate, content)?;
        std::thread::sleep(Duration::from_millis(1500));
        ensure!(ground.shown(None)? == good, "the last good one is gone");
    }
    let log = ground.router.log();
    ensure!(
        log.contains("the last good one stays"),
        "the log says nothing"
    );
    let secret = fs::read_to_string(files.join("privkey.pem"))?;
    let secret = secret.lines().nth(1).context("no key")?;
    ensure!(!log.contains(secret), "the log shows the key");
    let shown = ground.router.pgs_json(&["tls", "show"])?;
    let problem = shown["certificates"][0]["problem"]
        .as_str()
        .unwrap_or_default();
    ensure!(problem.contains("no certificate in PEM form"), "{shown}");
    install(ground.installation, &["--default"], &other)?;
    becomes(ground, None, &other.der)
}

fn by_name(ground: &Ground<'_>) -> anyhow::Result<()> {
    let default = ground.shown(None)?;
    let named = ground.issue("named.test")?;
    install(ground.installation, &["named.test"], &named)?;
    becomes(ground, Some("named.test"), &named.der)?;
    ensure!(ground.shown(None)? == default);
    ensure!(ground.shown(Some("x.named.test"))? == default);
    fs::remove_dir_all(ground.certificates().join("named.test"))?;
    becomes(ground, Some("named.test"), &default)
}

/// As certbot keeps them: links in `live` to files in `archive`, changed at renewal.
fn linked_in(ground: &Ground<'_>) -> anyhow::Result<()> {
    let certbot = ground.installation.scratch("letsencrypt");
    let live = certbot.join("live/bot.test");
    fs::create_dir_all(&live)?;
    symlink(certbot.join("live"), ground.certificates().join("live"))?;
    for round in 0..2 {
        let issued = ground.issue("bot.test")?;
        let archive = certbot.join(format!("archive{round}"));
        fs::create_dir_all(&archive)?;
        for (from, name) in [
            (&issued.certificate, "fullchain.pem"),
            (&issued.key, "privkey.pem"),
        ] {
            fs::copy(from, archive.join(name))?;
            let link = live.join(name);
            if link.is_symlink() {
                fs::remove_file(&link)?;
            }
            symlink(archive.join(name), link)?;
        }
        becomes(ground, Some("bot.test"), &issued.der)?;
    }
    Ok(())
}

fn none_left(ground: &Ground<'_>) -> anyhow::Result<()> {
    fs::remove_dir_all(ground.certificates())?;
    eventually("SSLRequest is answered N", NOTICED, || {
        let mut wire = ground.connect()?;
        wire.send(&pgs_tests::login::first_packet(super::SSL_REQUEST, b""))?;
        Ok((wire.receive(1)? == b"N").then_some(()))
    })
}
