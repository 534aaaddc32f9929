//! Where a request comes from, as far as that can be known.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use cronvec_edges::near::is_near_address;

/// Whom a gateway in front of this program says it was called by; the gateway's word is believed.
#[derive(Clone, Copy, Debug)]
pub struct SourceAddress(pub IpAddr);

/// As the gateway says, where there is one; else the peer. One on this machine or in a private network is a proxy's, whose last
/// hop is believed: what stands before it anybody may have written.
pub fn address(parts: &Parts) -> Option<IpAddr> {
    if let Some(SourceAddress(address)) = parts.extensions.get() {
        return Some(*address);
    }
    let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    let peer = peer.ip().to_canonical();
    if !is_near_address(peer) {
        return Some(peer);
    }
    let forwarded = parts.headers.get_all("x-forwarded-for").into_iter().next_back();
    let last = forwarded
        .and_then(|value| value.to_str().ok())
        .and_then(|hops| hops.rsplit(',').next())
        .and_then(|hop| hop.trim().parse().ok());
    Some(last.unwrap_or(peer))
}
