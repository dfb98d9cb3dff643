//! Lightning addresses (LUD-16) and the invoices that their hosts give for them (LUD-06).
//!
//! A host is chosen by a client, so it is somebody's we know nothing of: it, and where it sends us
//! on, is asked over https and at a public address, unless configuration allows others
//! (`fetch::guard`); its answers are bounded in time and length, and nothing that it says is
//! repeated to the client. The invoice is checked by who is to pay it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::fetch::guard::Guard;
use crate::fetch::{Fetch, FetchFailed};
use crate::money::Msat;

/// `user@host`, in lower case. No secret: it is shown to those who pay.
#[derive(Clone, PartialEq, Eq)]
pub struct LightningAddress {
    user: String,
    host: String,
}

/// Why there is no invoice. Nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoInvoice {
    #[error("it names no host that may be asked")]
    Unwelcome,
    #[error("its host does not answer")]
    Silent,
    #[error("its host does not know it or gives no invoice for it")]
    Refused,
    #[error("its host takes from {} to {} msat", min.get(), max.get())]
    OutOfRange { min: Msat, max: Msat },
    #[error("what its host answers is no invoice for this")]
    Unusable,
}

/// Who asks hosts for invoices.
#[derive(Clone, Debug)]
pub struct Payees {
    fetch: Fetch,
    guard: Guard,
}

impl LightningAddress {
    /// Reads an address as a person writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii().to_ascii_lowercase();
        if text.len() > ADDRESS_BYTES_MAX {
            return None;
        }
        let (user, host) = text.split_once('@')?;
        let is_user = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if user.is_empty() || !user.bytes().all(is_user) {
            return None;
        }
        let (name, port) = host.split_once(':').unwrap_or((host, "1"));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        let port_fits = port.parse::<u16>().is_ok_and(|port| port > 0);
        let named = !name.is_empty() && name.bytes().all(is_name) && !name.starts_with(['.', '-']);
        (named && port_fits).then(|| Self { user: user.to_owned(), host: host.to_owned() })
    }
}

impl fmt::Display for LightningAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

impl fmt::Debug for LightningAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an address answers (LUD-06), or why it does not.
#[derive(Deserialize)]
struct PayRequest {
    tag: Option<String>,
    callback: Option<String>,
    #[serde(rename = "minSendable")]
    min_sendable: Option<u64>,
    #[serde(rename = "maxSendable")]
    max_sendable: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    pr: Option<String>,
}

impl Payees {
    /// `private`: also addresses of this network; one with a port is asked over plain http then.
    pub fn new(fetch: Fetch, private: bool) -> Self {
        Self { fetch, guard: Guard::new(private) }
    }

    /// An invoice of this address for exactly this amount, as its host says; to be checked.
    pub async fn invoice(&self, to: &LightningAddress, amount: Msat) -> Result<String, NoInvoice> {
        let path = format!("{}/.well-known/lnurlp/{}", to.host, to.user);
        let plain = format!("http://{path}");
        let url = match to.host.contains(':') && self.guard.read(&plain).is_ok() {
            true => plain,
            false => format!("https://{path}"),
        };
        let PayRequest { tag, callback, min_sendable, max_sendable } = self.asked(&url).await?;
        let (Some(callback), Some(min), Some(max)) = (callback, min_sendable, max_sendable) else {
            return Err(NoInvoice::Refused);
        };
        if tag.as_deref() != Some("payRequest") {
            return Err(NoInvoice::Refused);
        }
        if !(min..=max).contains(&amount.get()) {
            let bound = |msat| Msat::new(msat).unwrap_or(Msat::MAX);
            return Err(NoInvoice::OutOfRange { min: bound(min), max: bound(max) });
        }
        let callback = callback_for(&callback, amount).ok_or(NoInvoice::Unusable)?;
        let Answer { pr } = self.asked(&callback).await?;
        pr.ok_or(NoInvoice::Refused)
    }

    async fn asked<T: for<'de> Deserialize<'de>>(&self, url: &str) -> Result<T, NoInvoice> {
        let at = self.guard.admit(url).await.map_err(|unwelcome| {
            log::info!("a Lightning address: its host {unwelcome}");
            NoInvoice::Unwelcome
        })?;
        let answer = self.fetch.ask_at(&at, &[], ANSWER_MAX, ANSWER_BYTES_MAX).await;
        let body = answer.map_err(|failed| {
            log::info!("a Lightning address: {failed}");
            match failed {
                FetchFailed::Status(400..=499) => NoInvoice::Refused,
                FetchFailed::Malformed | FetchFailed::TooLong(_) => NoInvoice::Unusable,
                _ => NoInvoice::Silent,
            }
        })?;
        serde_json::from_slice(&body).map_err(|_| NoInvoice::Unusable)
    }
}

/// The callback with the amount, in msat, among its parameters.
fn callback_for(callback: &str, amount: Msat) -> Option<String> {
    if callback.len() > CALLBACK_BYTES_MAX {
        return None;
    }
    let url = callback.split('#').next()?;
    let separator = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{separator}amount={}", amount.get()))
}

/// The longest address of mail, which these look like.
const ADDRESS_BYTES_MAX: usize = 254;

/// Longer ones are no address that anybody meant.
const CALLBACK_BYTES_MAX: usize = 2048;

/// A host gets this long for each of its two answers, and this much of each is read: a picture
/// may be in the first.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling_and_names_nothing_but_user_and_host() {
        let read = |text: &str| LightningAddress::parse(text).map(|address| address.to_string());
        for (text, spelled) in [
            ("Alice@Example.com", "alice@example.com"),
            (" a.b-c_d+tag@pay.example.com ", "a.b-c_d+tag@pay.example.com"),
            ("alice@127.0.0.1:8080", "alice@127.0.0.1:8080"),
        ] {
            assert_eq!(read(text).as_deref(), Some(spelled));
        }
        for odd in [
            "",
            "alice",
            "@example.com",
            "alice@",
            "a@b@c",
            "alice@example.com/path",
            "alice@example.com?x",
            "alice@example.com#x",
            "al/ice@example.com",
            "al%69ce@example.com",
            "alice@[::1]",
            "alice@example.com:0",
            "alice@example.com:99999",
            "alice@example.com:",
            "alice@.example.com",
            "alice@exämple.com",
            "alice@example.com\n",
        ] {
            let spelled = read(odd);
            assert!(spelled.is_none() || odd.ends_with('\n'), "{odd}: {spelled:?}");
        }
        let long = |length: usize| format!("{}@b.c", "a".repeat(length - 4));
        assert!(read(&long(ADDRESS_BYTES_MAX)).is_some());
        assert!(read(&long(ADDRESS_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn a_callback_keeps_its_own_parameters() {
        let amount = Msat::new(5000).unwrap();
        let with = |url: &str| callback_for(url, amount).unwrap();
        assert_eq!(with("https://a/cb"), "https://a/cb?amount=5000");
        assert_eq!(with("https://a/cb?id=7#x"), "https://a/cb?id=7&amount=5000");
        assert!(callback_for(&"a".repeat(CALLBACK_BYTES_MAX), amount).is_some());
        assert!(callback_for(&"a".repeat(CALLBACK_BYTES_MAX + 1), amount).is_none());
    }
}
