//! Which sessions are relayed although the kernel could move their bytes.

use crate::protocol::startup::StartupMessage;
use crate::tenant::settings::PathPolicy;

/// Names that PostgreSQL's own programs for bulk give themselves (`fallback_application_name` in
/// `src/bin/pg_dump` and `src/bin/pg_basebackup`). What they move the relay moves faster, and they
/// have to begin anew anyway when a connection breaks.
const BULK_PROGRAMS: [&str; 3] = ["pg_dump", "pg_restore", "pg_basebackup"];

/// Why this session is to be relayed; `None` where it may go through the kernel.
pub(super) fn relayed(policy: PathPolicy, message: &StartupMessage) -> Option<&'static str> {
    let program = message.parameter("application_name").unwrap_or_default();
    match policy {
        PathPolicy::Relay => Some("the tenant's setting is `path=relay`"),
        PathPolicy::Auto if BULK_PROGRAMS.iter().any(|name| name.as_bytes() == program) => {
            Some("its program moves bulk, by its application_name")
        }
        PathPolicy::Auto => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Parsed;
    use crate::protocol::startup::FirstPacket;
    use crate::protocol::startup::parse;

    fn message(program: &str) -> StartupMessage {
        let body = format!("user\0acme\0application_name\0{program}\0\0");
        let mut packet = (body.len() as u32 + 8).to_be_bytes().to_vec();
        packet.extend(0x0003_0000_u32.to_be_bytes());
        packet.extend(body.as_bytes());
        match parse(&packet).unwrap() {
            Parsed::Complete {
                value: FirstPacket::Startup(message),
                ..
            } => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bulk_is_relayed_and_everything_where_the_tenant_wants_it() {
        let reason = |policy, program| relayed(policy, &message(program));
        assert_eq!(reason(PathPolicy::Auto, "psql"), None);
        assert_eq!(reason(PathPolicy::Auto, "pg_dumper"), None);
        assert!(reason(PathPolicy::Auto, "pg_dump").is_some());
        assert!(reason(PathPolicy::Relay, "psql").is_some());
    }
}
