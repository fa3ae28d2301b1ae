//! TLS behind the PROXY protocol: the header comes before everything, in the clear.

use anyhow::ensure;
use pgs_tests::login::first_packet;
use pgs_tests::stage::Stage;
use pgs_tests::trust;
use pgs_tests::trust::ALPN;
use pgs_tests::wire::Wire;

use super::SSL_REQUEST;
use super::with_tls;

const HEADER: &[u8] = b"PROXY TCP6 2001:db8::7 ::1 4711 5432\r\n";

pub(super) fn behind_a_proxy(stage: &Stage) -> anyhow::Result<()> {
    let arguments = ["--proxy-protocol-from", "127.0.0.2,2001:db8::/32"];
    with_tls(stage, &arguments, |ground| {
        let proxy = || {
            let address = ground.router.address();
            Wire::connect_from([127, 0, 0, 2].into(), address)
        };
        let direct = |mut wire: Wire| {
            wire.send(HEADER)?;
            wire.secure(trust::client(Some("localhost"), Some(ALPN))?)
        };
        let asked = |mut wire: Wire| {
            wire.send(&[HEADER, &first_packet(SSL_REQUEST, b"")].concat())?;
            ensure!(wire.receive(1)? == b"S");
            wire.secure(trust::client(Some("localhost"), None)?)
        };
        for mut wire in [direct(proxy()?)?, asked(proxy()?)?] {
            let key = wire.log_in_with(3 << 16, ground.tenant.login())?.key()?;
            let told = wire.query_value("show pgs.client_addr")?;
            ensure!(told == "2001:db8::7", "{told}");
            wire.send_query("select pg_sleep(30)")?;
            std::thread::sleep(std::time::Duration::from_millis(200));
            let mut cancel = direct(proxy()?)?;
            cancel.send(&key.cancel_request())?;
            ensure!(cancel.receive_to_end()?.is_empty());
            let answer = wire.until_ready()?;
            let cancelled = |message: &_| {
                pgs_tests::wire::Message::sqlstate(message).as_deref() == Some("57014")
            };
            ensure!(answer.iter().any(cancelled), "{answer:?}");
        }
        // Inside the encryption it is too late, and from anybody else it is none.
        let mut wire = proxy()?;
        wire.send(HEADER)?;
        let mut wire = wire.secure(trust::client(Some("localhost"), Some(ALPN))?)?;
        wire.send(HEADER)?;
        ensure!(
            wire.receive_to_end()?.is_empty(),
            "a second header was answered"
        );
        ensure!(
            direct(ground.connect()?).is_err(),
            "an untrusted header, and TLS goes on"
        );
        Ok(())
    })
}
