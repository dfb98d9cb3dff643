//! Settings of the server that would lose money, told in the log.

use redis::Value;

use super::link::Link;
use super::replies::Parts;

/// Looks at the server's settings once. One that may not be asked (many rented servers) is not
/// told anything.
pub(super) async fn give(link: Link) {
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg("append*").arg("maxmemory-policy");
    let Ok(settings) = link.run(&ask).await else { return };
    for warning in warnings(settings) {
        log::warn!("redis: {warning}");
    }
}

fn warnings(settings: Value) -> Vec<&'static str> {
    let settings = match settings {
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        Value::Array(settings) => settings,
        _ => Vec::new(),
    };
    let Ok(mut settings) = Parts::of(Value::Array(settings)) else { return Vec::new() };
    let mut warnings = Vec::new();
    while let (Ok(name), Ok(value)) = (settings.text(), settings.text()) {
        warnings.extend(match (name.as_str(), value.as_str()) {
            ("appendonly", "no") => Some("appendonly is off: a restart forgets every balance"),
            ("appendfsync", "everysec" | "no") => {
                Some("appendfsync is not always: losing power loses the last changes")
            }
            ("maxmemory-policy", policy) if policy != "noeviction" => {
                Some("maxmemory-policy is not noeviction: a full server forgets accounts")
            }
            _ => None,
        });
    }
    warnings
}

#[cfg(test)]
mod tests {
    use nutgate_sandbox::{AppendOnly, Redis as Server, RedisOptions};

    use super::*;

    async fn told(options: RedisOptions, settings: &[[&str; 2]]) -> Vec<&'static str> {
        let server = Server::start(options).await.unwrap();
        for [name, value] in settings {
            server.cli(&["CONFIG", "SET", name, value]).await.unwrap();
        }
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("append*").arg("maxmemory-policy");
        warnings(ask.query_async(&mut connection).await.unwrap())
    }

    #[tokio::test]
    async fn unsafe_settings_are_told_and_safe_ones_are_not() {
        assert_eq!(told(RedisOptions::default(), &[]).await, [""; 0]);
        let off = RedisOptions { append_only: AppendOnly::Off };
        let told = told(off, &[["maxmemory-policy", "allkeys-lru"]]).await;
        assert_eq!(told.len(), 3, "{told:?}");
    }
}
