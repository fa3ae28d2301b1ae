//! `pgs version`.

use serde_json::json;

use crate::cli::FormatArguments;
use crate::command::Context;
use crate::datapath::kernel::EMBEDDED_OBJECT;
use crate::datapath::kernel::sha256;
use crate::error::Error;

/// Prints the version of pgs, and by hash which eBPF object is inside.
pub(super) fn run(context: &Context, arguments: FormatArguments) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    let object = sha256(EMBEDDED_OBJECT);
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
