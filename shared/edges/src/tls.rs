//! Owns the choice of the TLS stack: rustls over ring, everywhere. Refuses to open connections.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// Makes ring the process's cryptography. Call it first in `main`: `reqwest` is built without a choice of its own.
/// Calling it again changes nothing.
pub fn install() {
    if CryptoProvider::get_default().is_none() {
        // It fails only if another thread was faster, with the same one.
        let _ = ring::default_provider().install_default();
    }
}

/// The same cryptography, for those who configure rustls themselves.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
