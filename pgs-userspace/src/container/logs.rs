//! What a tenant's server has logged.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::StreamExt;

use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::error::is_not_found;
use crate::tenant::id::TenantId;

impl Engine {
    /// The server's log, piece by piece as Docker gives it: the last `lines`, or all of it; with
    /// `follow` it goes on until the container stops.
    pub fn logs(
        &self,
        tenant: &TenantId,
        lines: Option<u32>,
        follow: bool,
    ) -> impl Stream<Item = Result<Bytes, ContainerError>> {
        let container = self.installation.name_of(tenant);
        let tail = lines.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(follow)
            .tail(&tail)
            .build();
        let pieces = self.docker.logs(&container, Some(options));
        pieces.map(move |piece| match piece {
            Ok(piece) => Ok(LogOutput::into_bytes(piece)),
            Err(error) if is_not_found(&error) => Err(ContainerError::Missing {
                container: container.clone(),
            }),
            Err(error) => Err(ContainerError::call("read the log of", container.as_str())(
                error,
            )),
        })
    }

    /// The end of the log, for an error message; empty where it cannot be read.
    pub(super) async fn log_excerpt(&self, tenant: &TenantId, lines: usize) -> String {
        let mut pieces = Box::pin(self.logs(tenant, u32::try_from(lines).ok(), false));
        let mut text = String::new();
        while let Some(Ok(piece)) = pieces.next().await {
            text.push_str(&String::from_utf8_lossy(&piece));
        }
        text
    }
}
