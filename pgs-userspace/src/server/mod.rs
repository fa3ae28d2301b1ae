//! From accept to handover: startup, routing, access, authentication relayed, cancel, drain.
