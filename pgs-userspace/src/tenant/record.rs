//! What the registry knows of one tenant.

use serde::Serialize;

use crate::tenant::id::TenantId;

/// Whether clients may log in through the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// They may.
    Enabled,
    /// They may not. Every new tenant starts like this.
    Disabled,
}

/// Where a tenant stands between its creation and its removal. Written before each act, so that
/// the next command knows what a crashed one was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// A `create` is under way, or crashed: then everything it made goes away again.
    Creating,
    /// It exists.
    Ready,
    /// A `remove` is under way, or crashed: then the removal is finished.
    Removing,
}

/// What becomes of the data volume when a creation is undone or a removal is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeFate {
    /// It goes with the tenant.
    Delete,
    /// It stays: `remove --keep-data`, or a creation that adopted it.
    Keep,
}

/// What a tenant's container is made from. Enough to make it again around the same volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blueprint {
    /// Image reference, such as `postgres:18`.
    pub image: String,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Docker network, or none at all.
    pub network: Option<String>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tenant {
    /// Its id.
    #[serde(serialize_with = "as_text")]
    pub id: TenantId,
    /// Where it stands.
    pub lifecycle: Lifecycle,
    /// Whether clients may log in.
    pub access: Access,
    /// What its container is made from.
    pub blueprint: Blueprint,
    /// What becomes of its volume if the current act is undone or finished by another command.
    #[serde(skip)]
    pub volume_fate: VolumeFate,
    /// Seconds since the epoch.
    pub created_at: u64,
}

/// For `serde(serialize_with)`: an id is its text.
pub(crate) fn as_text<S: serde::Serializer>(
    id: &TenantId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_str())
}

macro_rules! stored_as_text {
    ($type:ty, $($variant:ident = $text:literal),+) => {
        impl $type {
            /// The word that stands for it in the registry and in output.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl rusqlite::ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl rusqlite::types::FromSql for $type {
            fn column_result(
                value: rusqlite::types::ValueRef<'_>,
            ) -> rusqlite::types::FromSqlResult<Self> {
                match value.as_str()? {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(rusqlite::types::FromSqlError::InvalidType),
                }
            }
        }
    };
}

stored_as_text!(Access, Enabled = "enabled", Disabled = "disabled");
stored_as_text!(
    Lifecycle,
    Creating = "creating",
    Ready = "ready",
    Removing = "removing"
);
stored_as_text!(VolumeFate, Delete = "delete", Keep = "keep");
