//! Who pays for a request, as the client showed it.
//!
//! A credential read here is well formed and not yet trusted: whether a key has an account or a
//! Cashu token is worth anything is for the ledger and the wallet to say.

use std::fmt;

/// What the client showed. It has no `Display`, and its `Debug` shows the kind and nothing else.
#[derive(Clone, Copy)]
pub enum Credential<'h> {
    /// `X-Cashu`: one request paid by one Cashu token; the change comes back.
    Cashu(&'h str),
    /// A Cashu token used as a key, in `Authorization: Bearer` or `x-api-key`.
    CashuBearer(&'h str),
    /// An API key in its canonical form: `sk-` and 32 characters.
    ApiKey(&'h str),
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cashu(_) => "Cashu(redacted)",
            Self::CashuBearer(_) => "CashuBearer(redacted)",
            Self::ApiKey(_) => "ApiKey(redacted)",
        })
    }
}

/// Why nobody pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialRefusal {
    /// Nothing was shown, or a bearer scheme with nothing behind it, as clients with an unset
    /// key send it.
    Missing,
    /// Something was shown that can be no credential of ours.
    Malformed,
}

impl fmt::Display for CredentialRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no credential was given",
            Self::Malformed => "the credential is malformed",
        })
    }
}

impl std::error::Error for CredentialRefusal {}

/// Reads who pays. `X-Cashu` wins over `Authorization` when both are present, also when it is
/// malformed: a client that meant to pay by ecash is not silently charged elsewhere. `x-api-key`,
/// where Anthropic's clients put their key, is read when neither of the two is present.
///
/// A key of `sk-` and 64 hex digits names the account of its first 32, so its canonical prefix is
/// what comes back.
pub fn credential<'h>(
    x_cashu: Option<&'h str>,
    authorization: Option<&'h str>,
    x_api_key: Option<&'h str>,
) -> Result<Credential<'h>, CredentialRefusal> {
    if let Some(value) = x_cashu {
        let value = value.trim_matches(BLANK);
        return match is_cashu(value) {
            true => Ok(Credential::Cashu(value)),
            false => Err(CredentialRefusal::Malformed),
        };
    }
    let Some(value) = authorization else {
        return bearer(x_api_key.unwrap_or_default().trim_matches(BLANK));
    };
    let value = value.trim_matches(BLANK);
    if value.is_empty() {
        return Err(CredentialRefusal::Missing);
    }
    let (scheme, shown) = value.split_once(BLANK).unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(CredentialRefusal::Malformed);
    }
    bearer(shown.trim_matches(BLANK))
}

fn bearer(shown: &str) -> Result<Credential<'_>, CredentialRefusal> {
    if shown.is_empty() {
        return Err(CredentialRefusal::Missing);
    }
    if is_cashu(shown) {
        return Ok(Credential::CashuBearer(shown));
    }
    let secret = shown.strip_prefix(KEY_PREFIX).ok_or(CredentialRefusal::Malformed)?;
    let short = secret.len() == KEY_SECRET_LEN && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    let long = secret.len() == KEY_LONG_LEN && secret.bytes().all(|b| b.is_ascii_hexdigit());
    match shown.get(..KEY_PREFIX.len() + KEY_SECRET_LEN) {
        Some(key) if short || long => Ok(Credential::ApiKey(key)),
        _ => Err(CredentialRefusal::Malformed),
    }
}

/// Only the version is looked at: the wallet reads the rest, and says better what is wrong in it.
fn is_cashu(value: &str) -> bool {
    value.starts_with("cashuA") || value.starts_with("cashuB")
}

/// Optional white space of RFC 9110.
const BLANK: [char; 2] = [' ', '\t'];
const KEY_PREFIX: &str = "sk-";
const KEY_SECRET_LEN: usize = 32;
const KEY_LONG_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-0123456789abcdefABCDEF0123456789";

    /// What was read, in a form that can be compared.
    fn check(x_cashu: Option<&str>, authorization: Option<&str>, expected: &str) {
        check_all(x_cashu, authorization, None, expected);
    }

    fn check_all(
        x_cashu: Option<&str>,
        authorization: Option<&str>,
        x_api_key: Option<&str>,
        expected: &str,
    ) {
        let read = match credential(x_cashu, authorization, x_api_key) {
            Ok(Credential::Cashu(value)) => format!("cashu {value}"),
            Ok(Credential::CashuBearer(value)) => format!("bearer {value}"),
            Ok(Credential::ApiKey(value)) => format!("key {value}"),
            Err(refusal) => format!("{refusal:?}"),
        };
        assert_eq!(read, expected, "{x_cashu:?} {authorization:?} {x_api_key:?}");
    }

    #[test]
    fn x_cashu_wins_even_when_malformed() {
        let key = format!("Bearer {KEY}");
        check(Some("cashuAeyJ0"), Some(&key), "cashu cashuAeyJ0");
        check(Some(" cashuBo2F0\t"), None, "cashu cashuBo2F0");
        check(Some("cashuC"), Some(&key), "Malformed");
        check(Some(""), Some(&key), "Malformed");
        check(Some(KEY), None, "Malformed");
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_with_any_blanks() {
        for value in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            check(None, Some(&format!(" {value} \t  {KEY}  ")), &format!("key {KEY}"));
        }
        check(None, Some("Bearer cashuBo2F0"), "bearer cashuBo2F0");
        check(None, Some(&format!("Basic {KEY}")), "Malformed");
        check(None, Some(&format!("Bearer{KEY}")), "Malformed");
        check(None, Some(KEY), "Malformed");
    }

    #[test]
    fn x_api_key_is_read_when_nothing_else_is_shown() {
        check_all(None, None, Some(&format!(" {KEY}\t")), &format!("key {KEY}"));
        check_all(None, None, Some("cashuBo2F0"), "bearer cashuBo2F0");
        check_all(None, None, Some(&format!("Bearer {KEY}")), "Malformed");
        check_all(None, None, Some("sk-ant-api03-x"), "Malformed");
        check_all(None, None, Some(" "), "Missing");
        let other = KEY.replace('0', "9");
        check_all(None, Some(&format!("Bearer {other}")), Some(KEY), &format!("key {other}"));
        check_all(Some("cashuAeyJ0"), None, Some(KEY), "cashu cashuAeyJ0");
        // Shown and empty is shown: the client meant to pay from there.
        check_all(None, Some("Bearer"), Some(KEY), "Missing");
        check_all(None, Some("Basic x"), Some(KEY), "Malformed");
        check_all(Some(""), None, Some(KEY), "Malformed");
    }

    #[test]
    fn nothing_shown_is_missing_and_not_malformed() {
        check(None, None, "Missing");
        check(None, Some(""), "Missing");
        check(None, Some("Bearer"), "Missing");
        check(None, Some("bearer  "), "Missing");
    }

    #[test]
    fn the_long_form_of_a_key_names_the_account_of_its_first_half() {
        let half = "0123456789abcdef0123456789abcdef";
        check(None, Some(&format!("Bearer sk-{half}{half}")), &format!("key sk-{half}"));
        let not_hex = half.replace('a', "g");
        check(None, Some(&format!("Bearer sk-{half}{not_hex}")), "Malformed");
        for wrong in [&half[1..], &format!("{half}0"), &format!("{}-", &half[1..])] {
            check(None, Some(&format!("Bearer sk-{wrong}")), "Malformed");
        }
        check(None, Some(&format!("Bearer SK-{half}")), "Malformed");
        check(None, Some(&format!("Bearer {half}")), "Malformed");
    }

    #[test]
    fn debug_shows_no_secret() {
        for shown in [Credential::Cashu(KEY), Credential::CashuBearer(KEY), Credential::ApiKey(KEY)]
        {
            assert!(!format!("{shown:?}").contains("0123"));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_shown_a_key_is_canonical(shown in "\\PC{0,80}", scheme in "[Bb]earer ") {
            let value = format!("{scheme}{shown}");
            if let Ok(Credential::ApiKey(key)) = credential(None, Some(&value), None) {
                prop_assert_eq!(key.len(), 35);
                prop_assert!(shown.contains(key));
            }
        }

        #[test]
        fn every_key_of_32_characters_is_accepted(secret in "[0-9A-Za-z]{32}") {
            let key = format!("sk-{secret}");
            check(None, Some(&format!("Bearer {key}")), &format!("key {key}"));
        }
    }
}
