//! The image that a tenant's container is made from.

use std::path::Path;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::error::is_not_found;
use crate::container::error::reason;
use crate::container::specification::DATA_TARGET;

/// How far one layer of an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// The layer.
    pub layer: String,
    /// What is being done to it, in Docker's words.
    pub status: String,
    /// Bytes done and bytes in all, while it is downloaded.
    pub bytes: Option<(u64, u64)>,
}

impl Engine {
    /// Whether the image is on this machine.
    ///
    /// # Errors
    /// No image can have that name, or the call failed.
    pub async fn has_image(&self, image: &str) -> Result<bool, ContainerError> {
        if !is_one_path(image) {
            return Err(ContainerError::ImageName {
                image: image.to_owned(),
            });
        }
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ContainerError::call("inspect the image", image)(error)),
        }
    }

    /// Refuses an image whose data would not be in the tenant's volume: it would be lost with the
    /// container.
    ///
    /// # Errors
    /// It is such an image, or the call failed.
    pub async fn check_contract(&self, image: &str) -> Result<(), ContainerError> {
        let inspected = self.docker.inspect_image(image).await;
        let inspected = inspected.map_err(ContainerError::call("inspect the image", image))?;
        let config = inspected.config.unwrap_or_default();
        let volumes = config.volumes.unwrap_or_default();
        match unfit(&config.env.unwrap_or_default(), &volumes) {
            Some(reason) => Err(ContainerError::ImageUnfit {
                image: image.to_owned(),
                reason,
            }),
            None => Ok(()),
        }
    }

    /// Pulls the image, telling how far each layer is.
    ///
    /// # Errors
    /// Docker cannot pull it.
    pub async fn pull_image(
        &self,
        image: &str,
        mut progress: impl FnMut(PullProgress),
    ) -> Result<(), ContainerError> {
        let (name, tag) = split_reference(image);
        let options = CreateImageOptionsBuilder::default()
            .from_image(name)
            .tag(tag)
            .build();
        let mut events = Box::pin(self.docker.create_image(Some(options), None, None));
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| ContainerError::ImageMissing {
                image: image.to_owned(),
                reason: reason(&error),
            })?;
            if let Some(step) = step(event) {
                progress(step);
            }
        }
        Ok(())
    }
}

/// Why an image's server would not keep its data in the volume that is mounted for it.
fn unfit(variables: &[String], volumes: &[String]) -> Option<String> {
    let data = variables
        .iter()
        .find_map(|variable| variable.strip_prefix("PGDATA="));
    let Some(data) = data else {
        return Some("it does not set PGDATA".to_owned());
    };
    if !Path::new(data).starts_with(DATA_TARGET) {
        return Some(format!(
            "it keeps its data in `{data}`, not below `{DATA_TARGET}`"
        ));
    }
    // A volume of its own deeper down would hide the data from the one that is mounted.
    let deeper = volumes.iter().find(|volume| {
        volume.as_str() != DATA_TARGET && Path::new(volume).starts_with(DATA_TARGET)
    });
    deeper.map(|volume| format!("it declares a volume `{volume}` below `{DATA_TARGET}`"))
}

fn step(event: CreateImageInfo) -> Option<PullProgress> {
    let detail = event.progress_detail;
    let bytes = detail.and_then(|detail| {
        Some((
            u64::try_from(detail.current?).ok()?,
            u64::try_from(detail.total?).ok()?,
        ))
    });
    Some(PullProgress {
        layer: event.id?,
        status: event.status?,
        bytes,
    })
}

/// Whether a reference can stand in a URL of Docker's API and mean itself. Everything else about it
/// Docker judges; but `a/../b` it finds as `b`, and then can neither make nor undo a container.
fn is_one_path(image: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte);
    image.split('/').all(|part| {
        let dots = part.bytes().all(|byte| byte == b'.');
        !dots && part.bytes().all(may)
    })
}

/// Name and tag or digest of a reference. Without a tag Docker would pull every tag there is.
fn split_reference(image: &str) -> (&str, &str) {
    if image.contains('@') {
        return (image, "");
    }
    // A colon before the last slash belongs to a registry's port.
    let name_begin = image.rfind('/').map_or(0, |slash| slash + 1);
    match image[name_begin..].find(':') {
        Some(colon) => (
            &image[..name_begin + colon],
            &image[name_begin + colon + 1..],
        ),
        None => (image, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_outside_the_volume_is_found_out() {
        let check = |data: &str, volume: &str| {
            unfit(
                &[format!("PGDATA={data}"), "X=1".to_owned()],
                &[volume.to_owned()],
            )
        };
        assert_eq!(
            check("/var/lib/postgresql/18/docker", "/var/lib/postgresql"),
            None
        );
        let older = check("/var/lib/postgresql/data", "/var/lib/postgresql/data");
        assert!(older.unwrap().contains("declares a volume"));
        assert!(check("/data", "/data").unwrap().contains("not below"));
        assert!(unfit(&[], &[]).unwrap().contains("PGDATA"));
    }

    #[test]
    fn a_reference_that_would_lead_elsewhere_is_none() {
        for good in [
            "postgres",
            "pgs/postgres:18",
            "host.example:5000/a_b/pg-c:18.6",
            "pg@sha256:ab",
            "sha256:ab",
        ] {
            assert!(is_one_path(good), "{good}");
        }
        for bad in [
            "", "/", "/pg", "pg/", "a//pg", "a/../pg", "./pg", "pg ", "a?x=1", "a#b", "a%2fb", "é",
        ] {
            assert!(!is_one_path(bad), "{bad}");
        }
    }

    #[test]
    fn references_are_split_at_the_tag() {
        assert_eq!(split_reference("postgres:18"), ("postgres", "18"));
        assert_eq!(split_reference("postgres"), ("postgres", "latest"));
        assert_eq!(
            split_reference("host:5000/a/pg"),
            ("host:5000/a/pg", "latest")
        );
        assert_eq!(
            split_reference("host:5000/a/pg:18-x"),
            ("host:5000/a/pg", "18-x")
        );
        assert_eq!(split_reference("pg@sha256:ab"), ("pg@sha256:ab", ""));
    }
}
