//! Where to listen, and for whom.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::config::limits::LISTEN_ADDRESSES_MAX;
use crate::config::value::Value;
use crate::config::value::joined;
use crate::config::value::list;
use crate::tenant::id::TenantId;

/// One address and port; those who name no tenant otherwise come to this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOn {
    /// Where.
    pub address: SocketAddr,
    /// For whom, if for one tenant above all.
    pub tenant: Option<TenantId>,
}

impl From<SocketAddr> for ListenOn {
    fn from(address: SocketAddr) -> Self {
        let tenant = None;
        Self { address, tenant }
    }
}

impl FromStr for ListenOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, tenant) = match text.split_once('=') {
            Some((address, tenant)) => (address, Some(tenant)),
            None => (text, None),
        };
        let address = address.parse();
        let tenant = tenant.map(TenantId::parse).transpose();
        Ok(Self {
            address: address
                .map_err(|_| format!("`{text}` is no `address:port`, nor `address:port=tenant`"))?,
            tenant: tenant.map_err(|error| format!("`{text}`: {error}"))?,
        })
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, tenant } = self;
        match tenant {
            Some(tenant) => write!(f, "{address}={tenant}"),
            None => write!(f, "{address}"),
        }
    }
}

impl Value for Vec<ListenOn> {
    const FORM: &'static str = "list of `address:port` or `address:port=tenant`";

    fn parse(text: &str) -> Result<Self, String> {
        let addresses = list(text).map(str::parse).collect::<Result<Self, _>>()?;
        if let Some(address) = listed_twice(&addresses) {
            return Err(format!("`{address}` is listed twice"));
        }
        match addresses.len() {
            0 => Err("must name at least one `address:port`".to_owned()),
            1..=LISTEN_ADDRESSES_MAX => Ok(addresses),
            _ => Err(format!("has more than {LISTEN_ADDRESSES_MAX} addresses")),
        }
    }

    fn text(&self) -> String {
        joined(self)
    }
}

/// An address that cannot be listened on as often as it is there. With port 0 the kernel chooses
/// another one each time.
fn listed_twice(addresses: &[ListenOn]) -> Option<SocketAddr> {
    let mut seen = HashSet::new();
    let mut fixed = addresses
        .iter()
        .map(|on| on.address)
        .filter(|address| address.port() != 0);
    fixed.find(|address| !seen.insert(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_alone_or_with_a_tenant() {
        let text = "127.0.0.1:5432, [::1]:5432=acme";
        let listen = Vec::<ListenOn>::parse(text).unwrap();
        assert_eq!(listen.text(), "127.0.0.1:5432,[::1]:5432=acme");
        assert_eq!(listen[0].tenant, None);
        assert_eq!(listen[1].address, "[::1]:5432".parse().unwrap());
        for wrong in ["", "127.0.0.1", "127.0.0.1:1=", "127.0.0.1:1=Acme", "=acme"] {
            assert!(Vec::<ListenOn>::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_address_that_is_listed_twice_is_refused_by_name() {
        for twice in [
            "127.0.0.1:1,127.0.0.2:1,127.0.0.1:1",
            "127.0.0.1:1=acme,127.0.0.1:1=beta",
        ] {
            let why = Vec::<ListenOn>::parse(twice).unwrap_err();
            assert_eq!(why, "`127.0.0.1:1` is listed twice");
        }
        // The kernel chooses a port for each.
        assert!(Vec::<ListenOn>::parse("127.0.0.1:0,127.0.0.1:0").is_ok());
    }
}
