//! One container, volume and socket directory per tenant. Only this module knows bollard.
