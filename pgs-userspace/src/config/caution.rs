//! What a configuration may say, and is hardly ever meant to.

use crate::config::configuration::Configuration;

impl Configuration {
    /// Each with what to do. None of it keeps the configuration from being used: somebody may
    /// listen where only a load balancer gets to.
    pub fn cautions(&self) -> Vec<String> {
        let everybody = self.proxy_protocol.trusted.everybody();
        let trusts = everybody.map(|networks| {
            format!(
                "`trusted` in `[proxy_protocol]` trusts everybody ({networks}): whoever connects \
                 chooses the address that allow lists, limits and logs go by; name the load \
                 balancers' own networks"
            )
        });
        trusts.into_iter().collect()
    }

    /// Tells the log.
    pub fn log_cautions(&self) {
        for caution in self.cautions() {
            tracing::warn!(caution, "the configuration is used, but look at it again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::network::Networks;
    use crate::config::value::Value as _;

    fn cautions(trusted: &str) -> Vec<String> {
        let mut configuration = Configuration::default();
        configuration.proxy_protocol.trusted = Networks::parse(trusted).unwrap();
        configuration.cautions()
    }

    #[test]
    fn a_network_of_everybody_is_told() {
        for some in [
            "",
            "10.0.0.0/8",
            "0.0.0.0/1, 192.0.2.0/24",
            "::/1, 0.0.0.0/1",
        ] {
            assert_eq!(cautions(some), [""; 0], "{some}");
        }
        for (everybody, named) in [
            ("0.0.0.0/0", "(0.0.0.0/0)"),
            ("10.0.0.0/8, ::/0", "(::/0)"),
            ("::/0, 0.0.0.0/0", "(0.0.0.0/0,::/0)"),
            // In parts, too.
            ("0.0.0.0/1, 128.0.0.0/2, 192.0.0.0/2", "(0.0.0.0/0)"),
        ] {
            let told = cautions(everybody);
            assert_eq!(told.len(), 1, "{everybody}");
            assert!(told[0].contains(named), "{everybody}: {told:?}");
        }
    }
}
