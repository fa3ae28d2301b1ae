//! Moves a session's bytes, in the kernel or by relay. Only `datapath::kernel` knows aya.
