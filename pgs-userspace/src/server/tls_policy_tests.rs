//! Each policy against each way of being connected.
