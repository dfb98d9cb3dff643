//! What a log may have of a request's path.

use std::borrow::Cow;

use crate::ids::AccountId;

/// A request's path as a log may have it: the id of an invoice is left out of it, and what stands
/// for a child's id and is none, because it may be the child's key.
pub fn loggable_path(path: &str) -> Cow<'_, str> {
    let child = |id: &str| id == "reset" || AccountId::presented(id).is_some();
    without(path, "/lightning/invoice/", |_| false)
        .or_else(|| without(path, "/child-key/", child))
        .map_or(path.into(), Cow::Owned)
}

/// The path without the part behind `before`. `None`: there is none, or it may stay.
fn without(path: &str, before: &str, may_stay: impl Fn(&str) -> bool) -> Option<String> {
    let (start, rest) = path.split_once(before)?;
    let (part, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (!part.is_empty() && !may_stay(part)).then(|| format!("{start}{before}-{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_that_is_logged_has_an_invoices_id() {
        for prefix in ["", "/v1", "/v1/balance", "/v1/wallet", "/balance", "/wallet"] {
            let invoice = format!("{prefix}/lightning/invoice");
            assert_eq!(loggable_path(&invoice), invoice);
            let status = format!("{invoice}/5eed/status");
            assert_eq!(loggable_path(&status), format!("{invoice}/-/status"));
            assert_eq!(loggable_path(&format!("{invoice}/5eed")), format!("{invoice}/-"));
            assert_eq!(loggable_path(&format!("{invoice}/{}", id())), format!("{invoice}/-"));
        }
        assert_eq!(loggable_path("/v1/models"), "/v1/models");
    }

    #[test]
    fn no_path_that_is_logged_has_a_childs_key() {
        for prefix in ["/v1/balance", "/wallet"] {
            let children = format!("{prefix}/child-key");
            for path in ["", "/", "/reset", &format!("/{}", id())] {
                let path = format!("{children}{path}");
                assert_eq!(loggable_path(&path), path);
            }
            for wrong in ["sk-5eed", "sk%2D5eed", "5eed"] {
                let path = format!("{children}/{wrong}");
                assert_eq!(loggable_path(&path), format!("{children}/-"));
                assert_eq!(loggable_path(&format!("{path}/x")), format!("{children}/-/x"));
            }
        }
    }

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }
}
