//! What epoll gives back with an event: which session, which of its lives, which socket.

use super::session::Side;

/// Token of the wake-up event; no session has it.
pub(super) const WAKE_TOKEN: u64 = u64::MAX;

/// Bits of a token that hold the generation; one bit below them holds the side.
pub(super) const GENERATION_MASK: u32 = u32::MAX >> 1;

pub(super) fn pack(index: u32, generation: u32, side: Side) -> u64 {
    let side = u64::from(side == Side::Backend);
    u64::from(index) << 32 | u64::from(generation & GENERATION_MASK) << 1 | side
}

pub(super) fn unpack(token: u64) -> (u32, u32, Side) {
    let side = if token & 1 == 1 {
        Side::Backend
    } else {
        Side::Client
    };
    ((token >> 32) as u32, (token as u32) >> 1, side)
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
        ] {
            assert_eq!(
                unpack(pack(index, generation, side)),
                (index, generation, side)
            );
        }
        assert_ne!(
            pack(u32::MAX - 1, GENERATION_MASK, Side::Backend),
            WAKE_TOKEN
        );
    }
}
