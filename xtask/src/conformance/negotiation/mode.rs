//! The servers that libpq meets: each set up twice, as pgs with a tenant and as PostgreSQL alone.

/// Below it a tenant's server is reached by its own name, so that TLS can pass through to it.
pub(super) const DOMAIN: &str = "conformance.test";

/// Who ends the TLS of a client, and whether there is any other way in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    Off,
    Offered,
    Required,
    /// Through pgs it is the tenant's server that ends it.
    PassedThrough,
}

/// What is asked of clients' certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    NotAsked,
    Optional,
    Demanded,
    /// The certificate must be in the name of the user.
    DemandedOfUser,
}

pub(super) struct Mode {
    pub(super) name: &'static str,
    pub(super) tls: Tls,
    pub(super) clients: Clients,
}

const fn mode(name: &'static str, tls: Tls, clients: Clients) -> Mode {
    Mode { name, tls, clients }
}

/// Where TLS passes through comes last: the tenant's server is then made anew.
pub(super) const MODES: [Mode; 8] = [
    mode("without TLS", Tls::Off, Clients::NotAsked),
    mode("with TLS", Tls::Offered, Clients::NotAsked),
    mode("that requires TLS", Tls::Required, Clients::NotAsked),
    mode(
        "that asks for a client certificate",
        Tls::Offered,
        Clients::Optional,
    ),
    mode(
        "that demands a client certificate",
        Tls::Required,
        Clients::Demanded,
    ),
    mode(
        "that demands the user's client certificate",
        Tls::Required,
        Clients::DemandedOfUser,
    ),
    mode(
        "whose TLS passes through",
        Tls::PassedThrough,
        Clients::NotAsked,
    ),
    mode(
        "whose TLS passes through and that demands the user's client certificate",
        Tls::PassedThrough,
        Clients::DemandedOfUser,
    ),
];

/// The same by name, as suites have their modes.
pub(super) const NAMES: [&str; MODES.len()] = {
    let mut names = [""; MODES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = MODES[at].name;
        at += 1;
    }
    names
};

impl Mode {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        MODES.iter().find(|mode| mode.name == name)
    }

    /// The host that clients connect to.
    pub(super) fn host(&self, tenant: &str) -> String {
        match self.tls {
            Tls::PassedThrough => format!("{tenant}.{DOMAIN}"),
            Tls::Off | Tls::Offered | Tls::Required => "localhost".to_owned(),
        }
    }

    /// `pg_hba.conf` of a server with all of it on its own.
    pub(super) fn access_rules(&self) -> String {
        let kind = match self.tls {
            Tls::Off | Tls::Offered => "host",
            Tls::Required | Tls::PassedThrough => "hostssl",
        };
        let demand = self.demand();
        format!("local all all trust\n{kind} all all all scram-sha-256{demand}\n")
    }

    /// What a rule of `pg_hba.conf` adds where certificates are demanded.
    pub(super) fn demand(&self) -> &'static str {
        match self.clients {
            Clients::NotAsked | Clients::Optional => "",
            Clients::Demanded => " clientcert=verify-ca",
            Clients::DemandedOfUser => " clientcert=verify-full",
        }
    }

    /// What the tenant has for it.
    pub(super) fn tenant_settings(&self, authority: &str) -> Vec<String> {
        let (tls, clients) = match (self.tls, self.clients) {
            // Its server is the one that asks.
            (Tls::PassedThrough, _) => ("passthrough", "off"),
            (_, Clients::NotAsked) => ("optional", "off"),
            (_, Clients::Optional) => ("optional", "optional"),
            (_, Clients::Demanded) => ("optional", "required"),
            (_, Clients::DemandedOfUser) => ("optional", "verify-user"),
        };
        let mut settings = vec![
            format!("tls={tls}"),
            format!("client_certificates={clients}"),
        ];
        if clients != "off" {
            settings.push(format!("client_ca={authority}"));
        }
        settings
    }

    /// What `pgs serve` has for it.
    pub(super) fn serve_arguments(&self) -> Vec<String> {
        let arguments: &[&str] = match self.tls {
            Tls::Off | Tls::Offered => &[],
            Tls::Required => &["--tls-required"],
            Tls::PassedThrough => &["--tls-domain", DOMAIN],
        };
        arguments.iter().map(|&word| word.to_owned()).collect()
    }
}
