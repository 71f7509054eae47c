//! Identifies the client of a request, for the limits per client.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client of a request: an IPv4 address, or the /64 of an IPv6 one.
pub(crate) fn of(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> IpAddr {
    subscriber(client_address(peer, headers, trusted_proxies))
}

/// Whether the peer is in `TRUSTED_PROXIES`.
pub(crate) fn is_trusted_proxy(peer: IpAddr, trusted_proxies: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted_proxies.iter().any(|network| network.contains(&peer))
}

/// The last address of `X-Forwarded-For` that is not a trusted proxy's; anybody could
/// have written the addresses further left.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted_proxy(peer, trusted) {
        return peer;
    }
    let forwarded: Vec<&str> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let mut client = peer;
    for address in forwarded.iter().rev() {
        let Some(address) = parse_address(address) else { break };
        client = address;
        if !is_trusted_proxy(client, trusted) {
            break;
        }
    }
    client
}

/// Parses an address as proxies write it, with or without port and brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<SocketAddr>().map(|address| address.ip());
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse();
    address.or(bare).ok().map(|address: IpAddr| address.to_canonical())
}

/// An IPv4 address, or the /64 of an IPv6 one, all of which one subscriber may use.
pub(crate) fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

/// Detects a proxy that `TRUSTED_PROXIES` does not name: a peer that forwards addresses of clients.
/// The limits then count everyone behind it as one client.
#[derive(Debug, Clone)]
pub(crate) struct UnnamedProxy {
    trusted_proxies: Arc<[IpNet]>,
    first: Arc<OnceLock<IpAddr>>,
}

impl UnnamedProxy {
    pub(crate) fn new(trusted_proxies: &[IpNet]) -> Self {
        Self { trusted_proxies: trusted_proxies.into(), first: Arc::default() }
    }

    /// The address of the first such peer since the process started.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.first.get().copied()
    }

    /// Logs the first such peer, without its address, which may be a client's that only pretends to
    /// be a proxy.
    fn look(&self, peer: IpAddr, headers: &HeaderMap) {
        let forwards = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED);
        if forwards
            && self.first.get().is_none()
            && !is_trusted_proxy(peer, &self.trusted_proxies)
            && self.first.set(peer.to_canonical()).is_ok()
        {
            tracing::warn!(
                "a request with X-Forwarded-For or Forwarded came from an address that is not in TRUSTED_PROXIES; \
                 if a proxy sent it, name the proxy there: until then, everyone behind it shares one rate limit \
                 (the dashboard shows the address)"
            );
        }
    }
}

/// Looks at every request for an [`UnnamedProxy`].
pub(crate) async fn find_unnamed_proxy(State(proxy): State<UnnamedProxy>, request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        proxy.look(peer.ip(), request.headers());
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &str, trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        if !forwarded.is_empty() {
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_addresses_count_if_a_trusted_proxy_sent_them() {
        assert_eq!(client("203.0.113.9", "198.51.100.1", &[]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", "198.51.100.1", &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.7", &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", "nonsense", &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "[2001:db8::1]:443", &["10.0.0.0/8"]), "2001:db8::1");
        assert_eq!(client("::ffff:10.0.0.1", "198.51.100.1:5000", &["10.0.0.0/8"]), "198.51.100.1");
    }

    #[test]
    fn a_v6_subscriber_is_a_network() {
        assert_eq!(subscriber("2001:db8::1".parse().unwrap()), subscriber("2001:db8::ffff".parse().unwrap()));
    }
}
