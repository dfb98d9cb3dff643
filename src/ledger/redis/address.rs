//! Where the Redis is, in the one line that configuration has for it.
//!
//! | address | what stands there |
//! |---|---|
//! | `redis://[user:password@]host:port[/db]` | one server |
//! | `redis+sentinel://[user:password@]host:port[,…]/name` | the master of these sentinels |
//! | `redis+cluster://[user:password@]host:port[,…]` | a cluster that these nodes know |
//!
//! `rediss` instead of `redis` is TLS to all of them. The credentials are the servers'.

use redis::{ConnectionInfo, IntoConnectionInfo, RedisResult};

/// A parsed address. Holds a password: it has no `Display` and no `Debug`.
#[derive(Clone)]
pub(super) enum Address {
    One(ConnectionInfo),
    Cluster(Vec<ConnectionInfo>),
    Sentinel { sentinels: Vec<ConnectionInfo>, name: String, server: ConnectionInfo },
}

impl Address {
    /// # Errors
    /// What is wrong with it, without repeating any of it: it may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it is not a URL")?;
        let (plain, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !matches!(plain, "redis" | "rediss") {
            return Err("it starts with neither redis nor rediss".to_owned());
        }
        let (credentials, hosts) = match rest.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), rest),
        };
        let (hosts, path) = hosts.split_once('/').unwrap_or((hosts, ""));
        let info = |credentials: &str, host: &str, path: &str| {
            parsed(format!("{plain}://{credentials}{host}/{path}").into_connection_info())
        };
        let each = |credentials: &str| -> Result<Vec<_>, String> {
            hosts.split(',').map(|host| info(credentials, host, "")).collect()
        };
        match kind {
            "" => Ok(Self::One(info(&credentials, hosts, path)?)),
            "cluster" => Ok(Self::Cluster(each(&credentials)?)),
            "sentinel" if path.is_empty() => Err("the master's name is missing".to_owned()),
            "sentinel" => Ok(Self::Sentinel {
                sentinels: each("")?,
                name: path.to_owned(),
                server: info(&credentials, hosts.split(',').next().unwrap_or(hosts), "")?,
            }),
            _ => Err("it names neither sentinel nor cluster after the plus".to_owned()),
        }
    }
}

fn parsed(info: RedisResult<ConnectionInfo>) -> Result<ConnectionInfo, String> {
    info.map_err(|_| "a host, port or database in it cannot be read".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address_is_read_and_a_wrong_one_is_told_without_repeating_it() {
        let kind = |text: &str| match Address::parse(text) {
            Ok(Address::One(_)) => "one".to_owned(),
            Ok(Address::Cluster(nodes)) => format!("cluster of {}", nodes.len()),
            Ok(Address::Sentinel { sentinels, name, .. }) => {
                format!("{name} of {}", sentinels.len())
            }
            Err(why) => why,
        };
        assert_eq!(kind("redis://127.0.0.1:6379"), "one");
        assert_eq!(kind("rediss://user:secret@redis.example.com:6380/3"), "one");
        assert_eq!(kind("redis+cluster://a:1,b:2,c:3"), "cluster of 3");
        assert_eq!(kind("redis+sentinel://:secret@a:1,b:2/main"), "main of 2");
        for wrong in [
            "secret",
            "http://secret",
            "redis+other://secret:1",
            "redis+sentinel://secret:1",
            "redis://secret:port",
        ] {
            assert!(!kind(wrong).contains("secret") && Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
