//! What a local path asks of the ledger or a mint, told from the head of a request alone.

use http::Method;

/// What stands behind a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Documents, preflights, nothing at all: open to everybody.
    Open,
    /// An account or an invoice is made for whoever asks.
    Opening,
    /// An invoice is shown to whoever knows its id.
    Invoice,
    /// Something that a credential names.
    Account,
    /// The same, or the change of an earlier payment: an `X-Cashu` shown here is its receipt.
    Claim,
}

/// Tells the door of a path that is not sold.
pub fn door(method: &Method, path: &str) -> Door {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default();
    if method == Method::OPTIONS || !BEHIND_A_CREDENTIAL.contains(&first) {
        return Door::Open;
    }
    let last = parts.next_back().unwrap_or(first);
    match last {
        "create" => Door::Opening,
        "invoice" if method == Method::POST => Door::Opening,
        "status" => Door::Invoice,
        "refund" => Door::Claim,
        _ => Door::Account,
    }
}

/// With what such paths begin, under any of their names.
const BEHIND_A_CREDENTIAL: [&str; 4] = ["balance", "wallet", "lightning", "webhooks"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_door_under_each_of_its_names() {
        let check = |method: Method, path: &str, door_: Door| {
            for prefix in ["", "/v1"] {
                assert_eq!(door(&method, &format!("{prefix}{path}")), door_, "{method} {path}");
            }
        };
        for path in ["/models", "/models/a/create", "/info", "/healthz", "/", "/nothing"] {
            check(Method::GET, path, Door::Open);
        }
        for root in ["/balance", "/wallet"] {
            check(Method::OPTIONS, &format!("{root}/create"), Door::Open);
            check(Method::GET, root, Door::Account);
            check(Method::GET, &format!("{root}/"), Door::Account);
            for path in ["/info", "/history", "/topup", "/child-key", "/child-key/reset"] {
                check(Method::POST, &format!("{root}{path}"), Door::Account);
            }
            check(Method::POST, &format!("{root}/refund"), Door::Claim);
            check(Method::GET, &format!("{root}/create"), Door::Opening);
        }
        for root in ["", "/balance", "/wallet"] {
            check(Method::POST, &format!("{root}/lightning/invoice"), Door::Opening);
            check(Method::GET, &format!("{root}/lightning/invoice/5eed/status"), Door::Invoice);
        }
    }
}
