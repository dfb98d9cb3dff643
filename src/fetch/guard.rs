//! Where a client may send the gateway.
//!
//! A client that names an address makes this machine connect for it, from inside the operator's
//! network. So the address is read by the rules that the connection will follow (the `url` crate
//! knows every way to write a host: decimal, octal, hex and short numbers, escapes, wide digits,
//! trailing dots), its name is looked up **once**, every address that it has must be public, and
//! what comes out is a [`Destination`]: a connection goes to exactly the addresses that were
//! judged. A name that means something else a moment later (rebinding) changes nothing.
//!
//! An operator may allow private addresses, for an intranet or a test, and plain http with them.
//! Addresses that are nobody's, links without a router, groups and the metadata servers of clouds
//! stay refused even then.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::{Host, Url};

/// Judges addresses that come from clients. A clone is the same guard.
#[derive(Clone)]
pub struct Guard {
    private: bool,
    names: Arc<dyn Names>,
}

/// An address whose host was judged, with what its name meant then. Short-lived: make a new one
/// for every attempt, so that a host that moves is found again, and judged again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub(super) url: Url,
    /// Never empty; all of them were judged.
    pub(super) addresses: Vec<IpAddr>,
}

/// Why the gateway does not go there. Safe to show to who named it: a name that is not known and
/// one that means a private address are the same to them, or they could read the operator's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwelcome {
    #[error("is not an address like `https://host/path`")]
    Malformed,
    #[error("must begin with `https://`")]
    Scheme,
    #[error("must not hold credentials")]
    Credentials,
    #[error("does not name a host with a public address")]
    Host,
    #[error("names a host that could not be looked up in time")]
    Late,
}

/// Who knows what a name means. For tests to stand in.
#[async_trait]
pub trait Names: Send + Sync {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

impl Guard {
    /// With `private`, addresses of this machine and of private networks are allowed, and http.
    pub fn new(private: bool) -> Self {
        Self::with_names(private, Arc::new(System))
    }

    pub fn with_names(private: bool, names: Arc<dyn Names>) -> Self {
        Self { private, names }
    }

    /// Reads an address and looks its name up, once and within a bounded time.
    ///
    /// # Errors
    /// It is none, or one of the addresses that its host has is not welcome.
    pub async fn admit(&self, text: &str) -> Result<Destination, Unwelcome> {
        let url = self.read(text)?;
        let addresses = match url.host().ok_or(Unwelcome::Malformed)? {
            Host::Ipv4(address) => vec![IpAddr::V4(address)],
            Host::Ipv6(address) => vec![IpAddr::V6(address)],
            Host::Domain(name) => {
                let found = tokio::time::timeout(LOOKUP_MAX, self.names.addresses(name)).await;
                found.map_err(|_| Unwelcome::Late)?.map_err(|_| Unwelcome::Host)?
            }
        };
        let welcome = |address: &IpAddr| match reach(*address) {
            Reach::Public => true,
            Reach::Private => self.private,
            Reach::Nowhere => false,
        };
        if addresses.is_empty() || !addresses.iter().all(welcome) {
            return Err(Unwelcome::Host);
        }
        Ok(Destination { url, addresses })
    }

    /// What can be said without looking anything up.
    ///
    /// # Errors
    /// It is not an address to go to, whatever its name means.
    pub fn read(&self, text: &str) -> Result<Url, Unwelcome> {
        let url = Url::parse(text).map_err(|_| Unwelcome::Malformed)?;
        match url.scheme() {
            "https" => {}
            "http" if self.private => {}
            "http" => return Err(Unwelcome::Scheme),
            _ => return Err(Unwelcome::Malformed),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Unwelcome::Credentials);
        }
        match url.host() {
            None => Err(Unwelcome::Malformed),
            Some(Host::Domain(name)) if !self.private && is_internal(name) => Err(Unwelcome::Host),
            Some(_) => Ok(url),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("private", &self.private).finish_non_exhaustive()
    }
}

impl Destination {
    /// The address as it will be asked for: what was read, written in the one usual way.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }
}

/// The resolver of this machine, with its hosts file.
struct System;

#[async_trait]
impl Names for System {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Names that mean something only inside a network: without a dot, and under what is reserved or
/// customary for that. Their addresses would be refused as well; this does not even look them up.
fn is_internal(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let Some((_, top)) = name.rsplit_once('.') else { return true };
    INTERNAL.contains(&top) || name.ends_with(".home.arpa")
}

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    /// This machine, and networks that somebody runs for themselves.
    Private,
    /// Nobody's, a link's, a group's, a translator's, or a cloud's own.
    Nowhere,
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let bits = address.to_bits();
    let within = |&(network, prefix): &(Ipv4Addr, u32)| {
        (bits ^ network.to_bits()).checked_shr(32 - prefix) == Some(0)
    };
    if NOWHERE_V4.iter().any(within) {
        return Reach::Nowhere;
    }
    if PRIVATE_V4.iter().any(within) { Reach::Private } else { Reach::Public }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if address == Ipv6Addr::LOCALHOST {
        return Reach::Private;
    }
    // What a mapped address means is the IPv4 address in it; so it is behind a NAT64.
    let [.., a, b, c, d] = address.octets();
    if in_v6(address, &MAPPED) || in_v6(address, &NAT64) {
        return reach_v4(Ipv4Addr::new(a, b, c, d));
    }
    if NOWHERE_V6.iter().any(|network| in_v6(address, network)) {
        return Reach::Nowhere;
    }
    match () {
        () if in_v6(address, &UNIQUE_LOCAL) => Reach::Private,
        () if in_v6(address, &GLOBAL) => Reach::Public,
        () => Reach::Nowhere,
    }
}

fn in_v6(address: Ipv6Addr, &(network, prefix): &(Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()).checked_shr(128 - prefix) == Some(0)
}

/// A name server that takes longer has no answer.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

const INTERNAL: &[&str] = &[
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "test",
];

const PRIVATE_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Shared by the customers of a carrier.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// IANA's registry of special addresses, but for what is private; and clouds' metadata servers
/// that are outside of it or within a private network.
const NOWHERE_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    // Relays between IPv6 and IPv4, given up.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

const MAPPED: (Ipv6Addr, u32) = (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
const UNIQUE_LOCAL: (Ipv6Addr, u32) = (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);
/// All that was ever given out for the public.
const GLOBAL: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is in [`GLOBAL`] or in [`UNIQUE_LOCAL`] and yet not for us.
const NOWHERE_V6: &[(Ipv6Addr, u32)] = &[
    // Protocols of their own, Teredo's tunnels (an IPv4 address behind) and benchmarks among them.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4: an IPv4 address behind.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
];

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
