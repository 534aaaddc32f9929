//! Owns which hosts are near: on this machine, in a private network, or under a name that no public DNS can hold. Refuses
//! to resolve names.
//!
//! Plain http goes to near hosts alone, and nothing that goes to one passes a proxy of the environment, which would read
//! it. Both ask here, so that they agree.

use std::net::IpAddr;

use url::Host;

/// Names under these are no public DNS's, nor are names without a dot (`ollama` beside us in a compose file).
const RESERVED: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];

/// Loopback, private (RFC 1918, RFC 4193) and link-local addresses, mapped into IPv6 or not.
pub fn is_near_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

pub fn is_near(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => is_near_address((*address).into()),
        Host::Ipv6(address) => is_near_address((*address).into()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            !name.contains('.') || RESERVED.iter().any(|suffix| name.ends_with(suffix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near_text(host: &str) -> bool {
        match Host::parse(host).unwrap() {
            Host::Domain(name) => is_near(&Host::Domain(name.as_str())),
            Host::Ipv4(address) => is_near(&Host::Ipv4(address)),
            Host::Ipv6(address) => is_near(&Host::Ipv6(address)),
        }
    }

    #[test]
    fn near_is_what_no_public_network_can_hold() {
        for host in [
            "localhost",
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.4",
            "169.254.1.2",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:10.0.0.1]",
            "ollama",
            "Ollama.",
            "app.localhost",
            "nas.local",
            "host.docker.internal",
            "box.home.arpa",
        ] {
            assert!(is_near_text(host), "{host}");
        }
        for host in [
            "api.openai.com",
            "8.8.8.8",
            "172.32.0.1",
            "[2001:db8::1]",
            "[::ffff:8.8.8.8]",
            "internal.example.com",
            "notlocal.example",
            "mylocal.dev",
        ] {
            assert!(!is_near_text(host), "{host}");
        }
    }
}
