//! Lists of networks: who may connect, who is trusted.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::limits::NETWORKS_IN_LIST_MAX;
use crate::config::value::Value;
use crate::config::value::joined;
use crate::config::value::list;

/// Networks in CIDR notation, IPv4 and IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is in one of them. An IPv4 address that arrived at an IPv6 socket is
    /// looked for as what it is.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The networks that have every address of their family in them, if there are such, also where
    /// several make it up together.
    pub fn everybody(&self) -> Option<String> {
        let mut whole = IpNet::aggregate(&self.0);
        whole.retain(|network| network.prefix_len() == 0);
        (!whole.is_empty()).then(|| joined(&whole))
    }
}

impl Value for Networks {
    const FORM: &'static str = "list of networks";

    fn parse(text: &str) -> Result<Self, String> {
        let networks = list(text).map(network).collect::<Result<Vec<_>, _>>()?;
        if networks.len() > NETWORKS_IN_LIST_MAX {
            return Err(format!(
                "has {} networks; at most {NETWORKS_IN_LIST_MAX}",
                networks.len()
            ));
        }
        Ok(Self(networks))
    }

    fn text(&self) -> String {
        joined(&self.0)
    }
}

/// One network, or one address. Bits behind the prefix are a mistake: `192.0.2.7/24` may have been
/// meant as the one or the other.
fn network(text: &str) -> Result<IpNet, String> {
    let malformed = || format!("`{text}` is no network such as `192.0.2.0/24` or `2001:db8::/32`");
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| malformed())?,
    };
    if matches!(network.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(format!("`{text}`: write it as an IPv4 network"));
    }
    if network == network.trunc() {
        return Ok(network);
    }
    let whole = network.trunc();
    let one = IpNet::from(network.addr());
    Err(format!(
        "`{text}` has bits behind its prefix; write `{whole}` or `{one}`"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contain(networks: &str, address: &str) -> bool {
        let networks = Networks::parse(networks).unwrap();
        networks.contain(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_its_network_and_in_no_other() {
        let both = "192.0.2.0/24, 2001:db8::/32, 203.0.113.7";
        assert!(contain(both, "192.0.2.255"));
        assert!(!contain(both, "192.0.3.0"));
        assert!(contain(both, "2001:db8:ffff::1"));
        assert!(!contain(both, "2001:db9::1"));
        assert!(contain(both, "203.0.113.7") && !contain(both, "203.0.113.8"));
        assert!(contain("0.0.0.0/0", "8.8.8.8") && !contain("0.0.0.0/0", "::1"));
        assert!(!contain("", "192.0.2.1"));
    }

    #[test]
    fn an_ipv4_address_at_an_ipv6_socket_is_the_ipv4_address() {
        assert!(contain("192.0.2.0/24", "::ffff:192.0.2.1"));
        assert!(!contain("::/0", "::ffff:192.0.2.1"));
    }

    #[test]
    fn mistakes_are_named_with_the_way_out() {
        let error = Networks::parse("192.0.2.7/24").unwrap_err();
        assert!(
            error.contains("192.0.2.0/24") && error.contains("192.0.2.7/32"),
            "{error}"
        );
        for wrong in [
            "192.0.2",
            "192.0.2.0/33",
            "example.com",
            "::ffff:1.2.3.4",
            "a,b",
        ] {
            assert!(Networks::parse(wrong).is_err(), "{wrong}");
        }
        let many = vec!["192.0.2.1"; NETWORKS_IN_LIST_MAX + 1].join(",");
        assert!(Networks::parse(&many).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_is_written_so_that_it_parses_again(
            text in "[0-9a-f:./, ]{0,40}"
        ) {
            if let Ok(networks) = Networks::parse(&text) {
                prop_assert_eq!(Networks::parse(&networks.text()), Ok(networks));
            }
        }
    }
}
