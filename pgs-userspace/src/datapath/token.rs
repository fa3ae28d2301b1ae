//! What epoll gives back with an event: which session, which of its lives, which socket.

use super::session::Side;

/// Token of the wake-up event; no session has it.
pub(super) const WAKE_TOKEN: u64 = u64::MAX;

/// Bits of a token that hold the generation; two bits below them hold the side.
pub(super) const GENERATION_MASK: u32 = u32::MAX >> 2;

pub(super) fn pack(index: u32, generation: u32, side: Side) -> u64 {
    let side = match side {
        Side::Client => 0,
        Side::Backend => 1,
        Side::Aside => 2,
    };
    u64::from(index) << 32 | u64::from(generation & GENERATION_MASK) << 2 | side
}

pub(super) fn unpack(token: u64) -> (u32, u32, Side) {
    let side = match token & 3 {
        0 => Side::Client,
        1 => Side::Backend,
        _ => Side::Aside,
    };
    ((token >> 32) as u32, (token as u32) >> 2, side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_what_was_packed() {
        for (index, generation, side) in [
            (0, 0, Side::Client),
            (7, 3, Side::Backend),
            (u32::MAX - 1, GENERATION_MASK, Side::Client),
            (1, 2, Side::Aside),
        ] {
            assert_eq!(
                unpack(pack(index, generation, side)),
                (index, generation, side)
            );
        }
        assert_ne!(pack(u32::MAX - 1, GENERATION_MASK, Side::Aside), WAKE_TOKEN);
    }
}
