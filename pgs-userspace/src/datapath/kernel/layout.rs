//! Where the running kernel keeps what the verdict looks at, read from the kernel's own type
//! information (BTF; its format is `include/uapi/linux/btf.h`).

use std::io;

use pgs_common::flow::KernelLayout;

use crate::config::limits::KERNEL_TYPES_BYTES_MAX;

/// The kernel's types, where it was built with `CONFIG_DEBUG_INFO_BTF`.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;
/// `struct btf_header` up to its last field.
const HEADER_BYTES: usize = 24;
/// `struct btf_type`, and `struct btf_member` behind it.
const TYPE_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;
/// `BTF_KIND_STRUCT`.
const KIND_STRUCT: u32 = 4;
/// In `btf_member.offset`, when the type's `kind_flag` is set, the bits of the offset itself.
const MEMBER_OFFSET_MASK: u32 = 0x00ff_ffff;

/// Reads the layout of the running kernel.
pub(super) fn of_running_kernel() -> io::Result<KernelLayout> {
    let size = std::fs::metadata(KERNEL_TYPES)?.len();
    if size > KERNEL_TYPES_BYTES_MAX {
        return Err(io::Error::other(format!(
            "{KERNEL_TYPES} has {size} bytes; more than {KERNEL_TYPES_BYTES_MAX} are not read"
        )));
    }
    layout(&std::fs::read(KERNEL_TYPES)?)
        .ok_or_else(|| io::Error::other(format!("{KERNEL_TYPES} lacks what the verdict looks at")))
}

fn layout(btf: &[u8]) -> Option<KernelLayout> {
    let types = Types::parse(btf)?;
    let queue = types.member("sk_psock", "ingress_skb")?;
    Some(KernelLayout {
        sock_user_data: types.member("sock", "sk_user_data")?,
        sock_send_buffer: types.member("sock", "sk_sndbuf")?,
        sock_write_allocated: types.member("sock", "sk_wmem_alloc")?,
        sock_write_queued: types.member("sock", "sk_wmem_queued")?,
        psock_queue_length: queue + types.member("sk_buff_head", "qlen")?,
        unix_peer: types.member("unix_sock", "peer")?,
        // Named `state` until Linux 5.14.
        task_state: types
            .member("task_struct", "__state")
            .or_else(|| types.member("task_struct", "state"))?,
        tcp_next_unread: types.member("tcp_sock", "copied_seq")?,
        buffer_sequence: types.member("sk_buff", "cb")? + types.member("tcp_skb_cb", "seq")?,
    })
}

/// The two sections of a BTF blob.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    fn parse(btf: &'a [u8]) -> Option<Self> {
        let magic = u16::from_le_bytes(btf.get(..2)?.try_into().ok()?);
        if magic != MAGIC || btf.len() < HEADER_BYTES {
            return None;
        }
        let body = btf.get(word(btf, 4)? as usize..)?;
        Some(Self {
            types: section(body, word(btf, 8)?, word(btf, 12)?)?,
            strings: section(body, word(btf, 16)?, word(btf, 20)?)?,
        })
    }

    /// Byte offset of a direct member.
    fn member(&self, of: &str, name: &str) -> Option<u32> {
        let mut at = 0;
        while at < self.types.len() {
            let info = word(self.types, at + 4)?;
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let after = at + TYPE_BYTES + trailing_bytes(kind, count)?;
            if kind == KIND_STRUCT && self.is(word(self.types, at)?, of) {
                let bit_fields = info >> 31 == 1;
                let found = (0..count)
                    .map(|index| at + TYPE_BYTES + index * MEMBER_BYTES)
                    .find(|member| {
                        word(self.types, *member).is_some_and(|text| self.is(text, name))
                    });
                if let Some(member) = found {
                    return byte_offset(word(self.types, member + 8)?, bit_fields);
                }
            }
            at = after;
        }
        None
    }

    fn is(&self, offset: u32, text: &str) -> bool {
        let from = self.strings.get(offset as usize..).unwrap_or_default();
        from.strip_prefix(text.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Bytes that follow `struct btf_type`, by kind.
fn trailing_bytes(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => count * 12,
        // ENUM, FUNC_PROTO
        6 | 13 => count * 8,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn byte_offset(bits: u32, bit_fields: bool) -> Option<u32> {
    let bits = if bit_fields {
        bits & MEMBER_OFFSET_MASK
    } else {
        bits
    };
    bits.is_multiple_of(8).then_some(bits / 8)
}

fn section(body: &[u8], offset: u32, length: u32) -> Option<&[u8]> {
    let offset = offset as usize;
    body.get(offset..offset.checked_add(length as usize)?)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob with one struct `sock` of two members.
    fn blob() -> Vec<u8> {
        let strings = b"\0sock\0first\0sk_sndbuf\0";
        let mut types = Vec::new();
        for value in [1, KIND_STRUCT << 24 | 2, 16, 6, 0, 0, 12, 0, 64] {
            types.extend_from_slice(&u32::to_le_bytes(value));
        }
        let mut blob = Vec::new();
        blob.extend_from_slice(&MAGIC.to_le_bytes());
        blob.extend_from_slice(&[1, 0]);
        let lengths = [types.len() as u32, strings.len() as u32];
        for value in [24, 0, lengths[0], lengths[0], lengths[1]] {
            blob.extend_from_slice(&u32::to_le_bytes(value));
        }
        blob.extend_from_slice(&types);
        blob.extend_from_slice(strings);
        blob
    }

    #[test]
    fn a_member_is_found_by_name() {
        let blob = blob();
        let types = Types::parse(&blob).unwrap();
        assert_eq!(types.member("sock", "first"), Some(0));
        assert_eq!(types.member("sock", "sk_sndbuf"), Some(8));
        assert_eq!(types.member("sock", "sk_snd"), None);
        assert_eq!(types.member("soc", "first"), None);
    }

    #[test]
    fn a_truncated_blob_yields_nothing_and_does_not_panic() {
        let blob = blob();
        for length in 0..blob.len() {
            if let Some(types) = Types::parse(&blob[..length]) {
                types.member("sock", "sk_sndbuf");
            }
        }
        assert_eq!(layout(&blob), None);
    }
}
