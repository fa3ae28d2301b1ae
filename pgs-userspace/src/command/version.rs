//! `pgs version`.

use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::cli::FormatArguments;
use crate::command::Context;
use crate::datapath::kernel::EMBEDDED_OBJECT;
use crate::error::Error;

/// Prints the version of pgs, and by hash which eBPF object is inside.
pub(super) fn run(context: &Context, arguments: FormatArguments) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    let object = digest(EMBEDDED_OBJECT);
    if arguments.json {
        return context
            .printer
            .json(&json!({ "version": version, "ebpf_object_sha256": object }));
    }
    context.printer.line(&format!("pgs {version}"))?;
    context
        .printer
        .line(&format!("eBPF object sha256:{object}"))
}

fn digest(object: &[u8]) -> String {
    Sha256::digest(object)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_spelt_as_by_sha256sum() {
        assert_eq!(digest(b"abc")[..16], *"ba7816bf8f01cfea");
    }
}
