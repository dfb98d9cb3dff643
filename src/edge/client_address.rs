//! Where a client speaks from, as far as anybody may claim it.
//!
//! Only `X-Forwarded-For` is read: of two headers, one that a proxy does not know is one that it
//! passes on as the client wrote it.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;

/// The address that the nearest proxy of ours was spoken to from: the right-most of
/// `X-Forwarded-For` that is not one of `trusted`, and `peer` itself where that is none of them.
/// What stands further left was written by whoever stands here, and is not looked at.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut nearest = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    while is_trusted(&nearest) {
        // A hop that cannot be read was not written by a proxy of ours.
        let Some(hop) = hops.next().and_then(read) else { break };
        nearest = hop;
    }
    nearest
}

/// Who is counted as one: an address, and of IPv6 the network that one customer is given.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << CUSTOMER_BITS)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// An address, with a port or without; IPv6 in brackets or without.
fn read(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim_ascii();
    let in_brackets = hop.strip_prefix('[').and_then(|rest| Some(rest.split_once(']')?.0));
    let before_port = hop.split_once(':').map(|(address, _)| address);
    let address = [Some(hop), in_brackets, before_port].into_iter().flatten();
    address.filter_map(|text| text.parse::<IpAddr>().ok()).next().map(|it| it.to_canonical())
}

/// What of an IPv6 address is the customer's own: networks of /64 are given to one.
const CUSTOMER_BITS: u32 = 64;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        let found = client_address(address(peer), &headers, &trusted);
        assert_eq!(found, address(expected), "{peer} {forwarded:?}");
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_about_who_spoke_to_it() {
        check("192.0.2.1", &["203.0.113.9"], "192.0.2.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["203.0.113.9"], "203.0.113.9");
        // The client wrote what is left of its own address.
        check("10.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["10.0.0.3, 203.0.113.9 ,10.0.0.2"], "203.0.113.9");
        check("10.0.0.1", &["198.51.100.1", "203.0.113.9,10.0.0.2"], "203.0.113.9");
        // Nobody but proxies of ours: the furthest of them.
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check("2001:db8:1::1", &["2001:db8:2::7"], "2001:db8:2::7");
    }

    #[test]
    fn what_cannot_be_read_leaves_the_proxy_that_wrote_it() {
        for hop in ["unknown", "", "_hidden", "1.2.3", "\u{e4}", "[::1"] {
            check("10.0.0.1", &[&format!("203.0.113.9, {hop}")], "10.0.0.1");
            check("10.0.0.1", &[&format!("{hop}, 10.0.0.2")], "10.0.0.2");
        }
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        for hop in ["203.0.113.9:4711", "::ffff:203.0.113.9", "[::ffff:203.0.113.9]:80"] {
            check("10.0.0.1", &[hop], "203.0.113.9");
            check("::ffff:10.0.0.1", &[hop], "203.0.113.9");
        }
        check("10.0.0.1", &["[2001:db8:2::7]:443"], "2001:db8:2::7");
        check("10.0.0.1", &["[2001:db8:2::7]"], "2001:db8:2::7");
    }

    #[test]
    fn a_customer_of_ipv6_is_one_whatever_address_it_chooses() {
        let network = |text: &str| network_of(address(text)).to_string();
        assert_eq!(network("2001:db8:2:3:4:5:6:7"), "2001:db8:2:3::");
        assert_eq!(network("2001:db8:2:4::"), "2001:db8:2:4::");
        assert_eq!(network("203.0.113.9"), "203.0.113.9");
        assert_eq!(network("::ffff:203.0.113.9"), "203.0.113.9");
    }
}
