//! Who may call: limits of strangers, and the origins of pages.

use http::{HeaderValue, Uri};

use super::{BYTES_MAX, COUNT_MAX, Checks, Names};
use crate::config::mistake::KeyPath;
use crate::config::scalars::Whole;
use crate::config::{Guard, Origins, schema};

impl Checks<'_> {
    pub(super) fn guard(&mut self, guard: schema::Guard) -> Guard {
        let at = KeyPath::from("guard");
        let mut per_minute = |given: Whole, key| {
            if given.0 > COUNT_MAX {
                self.found.add(at.key(key), format!("must be from 0 to {COUNT_MAX}"));
            }
            given.0
        };
        Guard {
            unpaid_per_minute: per_minute(guard.unpaid_per_minute, "unpaid_per_minute"),
            unknown_keys_per_minute: per_minute(
                guard.unknown_keys_per_minute,
                "unknown_keys_per_minute",
            ),
            failed_redemptions_per_minute: per_minute(
                guard.failed_redemptions_per_minute,
                "failed_redemptions_per_minute",
            ),
            openings_per_minute: per_minute(guard.openings_per_minute, "openings_per_minute"),
            unpaid_body_bytes_max: self.size(
                guard.unpaid_body_bytes_max,
                0,
                BYTES_MAX,
                &at.key("unpaid_body_bytes_max"),
            ),
            trusted_proxies: self
                .elements(guard.trusted_proxies, &at.key("trusted_proxies"))
                .into_iter()
                .map(|(network, _)| network.0)
                .collect(),
        }
    }

    pub(super) fn origins(&mut self, cors: schema::Cors) -> Origins {
        let at = KeyPath::from("cors").key("origins");
        let is_alone = cors.origins.len() == 1;
        let mut names = Names::default();
        let mut listed = Vec::new();
        for (text, at) in self.elements(cors.origins, &at) {
            if text == ANY {
                if is_alone {
                    return Origins::Any;
                }
                self.found.add(at, "`*` is every origin, and stands alone");
                continue;
            }
            self.unique(&mut names, &text, &at);
            match origin(&text) {
                Some(origin) => listed.push(origin),
                None => {
                    let form = "an origin as browsers send it, like `https://app.example.com`";
                    self.found.add(at, format!("`{text}` is not {form}"));
                }
            }
        }
        Origins::Listed(listed)
    }
}

/// Scheme, host and perhaps a port, in lower case and nothing else: it is compared byte by byte.
/// `null` is none: every sandboxed frame is that one.
fn origin(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let is_whole = format!("{scheme}://{authority}") == text && !authority.contains('@');
    let is_default_port =
        matches!((scheme, uri.port_u16()), ("http", Some(80)) | ("https", Some(443)));
    let is_lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
    (is_whole && is_lower && !is_default_port).then(|| HeaderValue::from_str(text).ok())?
}

const ANY: &str = "*";
