//! The commands' side of the admin socket.
