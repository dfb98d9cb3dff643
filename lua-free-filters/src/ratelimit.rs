//! How much a key may still ask for, in the head of an answer: as most clients read it, as the
//! OpenAI SDKs do, and as the IETF draft "RateLimit header fields for HTTP" writes it.

use http::{HeaderName, HeaderValue};

/// What one limit allows in a window of time, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub limit: u64,
    pub left: u64,
    pub window_ms: u64,
    /// Until the window ends and everything is left again.
    pub reset_in_ms: u64,
}

/// The lines for an answer that leaves at `now_ms`, which is counted from 1970 on.
///
/// Times are rounded up to seconds: coming back sooner would be too soon. Nothing is said to be
/// left beyond its limit, and no number is larger than [`FIGURE_MAX`].
pub fn rate_limit_lines(
    requests: &Quota,
    tokens: &Quota,
    now_ms: u64,
) -> [(HeaderName, HeaderValue); 11] {
    let (made, used) = (Figures::of(requests), Figures::of(tokens));
    let reset_at = seconds(now_ms.saturating_add(requests.reset_in_ms));
    let policy = format!(
        r#""requests";q={};w={}, "tokens";q={};qu="tokens";w={}"#,
        made.limit, made.window_s, used.limit, used.window_s
    );
    let state = format!(
        r#""requests";r={};t={}, "tokens";r={};t={}"#,
        made.left, made.reset_s, used.left, used.reset_s
    );
    [
        (X_RATELIMIT_LIMIT, made.limit.into()),
        (X_RATELIMIT_REMAINING, made.left.into()),
        (X_RATELIMIT_RESET, reset_at.into()),
        (X_RATELIMIT_LIMIT_REQUESTS, made.limit.into()),
        (X_RATELIMIT_REMAINING_REQUESTS, made.left.into()),
        (X_RATELIMIT_RESET_REQUESTS, value(in_units(made.reset_s))),
        (X_RATELIMIT_LIMIT_TOKENS, used.limit.into()),
        (X_RATELIMIT_REMAINING_TOKENS, used.left.into()),
        (X_RATELIMIT_RESET_TOKENS, value(in_units(used.reset_s))),
        (RATELIMIT_POLICY, value(policy)),
        (RATELIMIT, value(state)),
    ]
}

/// A quota in numbers that may be written.
struct Figures {
    limit: u64,
    left: u64,
    window_s: u64,
    reset_s: u64,
}

impl Figures {
    fn of(quota: &Quota) -> Self {
        let limit = quota.limit.min(FIGURE_MAX);
        Self {
            limit,
            left: quota.left.min(limit),
            window_s: seconds(quota.window_ms),
            reset_s: seconds(quota.reset_in_ms),
        }
    }
}

fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1_000).min(FIGURE_MAX)
}

/// A time as OpenAI writes it: `6m0s`.
fn in_units(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("it is made of digits and visible ASCII")
}

/// The largest integer of a structured field (RFC 9651). A limit beyond it is written as this: it
/// is as good as none.
pub const FIGURE_MAX: u64 = 999_999_999_999_999;

const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const X_RATELIMIT_LIMIT_REQUESTS: HeaderName =
    HeaderName::from_static("x-ratelimit-limit-requests");
const X_RATELIMIT_REMAINING_REQUESTS: HeaderName =
    HeaderName::from_static("x-ratelimit-remaining-requests");
const X_RATELIMIT_RESET_REQUESTS: HeaderName =
    HeaderName::from_static("x-ratelimit-reset-requests");
const X_RATELIMIT_LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const X_RATELIMIT_REMAINING_TOKENS: HeaderName =
    HeaderName::from_static("x-ratelimit-remaining-tokens");
const X_RATELIMIT_RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;
    const HOUR_MS: u64 = 3_600_000;

    fn written(requests: Quota, tokens: Quota, now_ms: u64) -> Vec<(String, String)> {
        let lines = rate_limit_lines(&requests, &tokens, now_ms);
        let text = |value: &HeaderValue| value.to_str().expect("visible ASCII").to_owned();
        lines.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[test]
    fn one_standing_is_told_in_three_dialects_and_times_are_rounded_up() {
        let requests = Quota { limit: 1_000, left: 0, window_ms: MINUTE_MS, reset_in_ms: 59_001 };
        let tokens =
            Quota { limit: 1_000_000, left: 987_654, window_ms: HOUR_MS, reset_in_ms: 360_000 };
        let expected = [
            ("x-ratelimit-limit", "1000"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1700000060"),
            ("x-ratelimit-limit-requests", "1000"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "1m0s"),
            ("x-ratelimit-limit-tokens", "1000000"),
            ("x-ratelimit-remaining-tokens", "987654"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            (
                "ratelimit-policy",
                r#""requests";q=1000;w=60, "tokens";q=1000000;qu="tokens";w=3600"#,
            ),
            ("ratelimit", r#""requests";r=0;t=60, "tokens";r=987654;t=360"#),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(written(requests, tokens, 1_700_000_000_500), expected);
    }

    #[test]
    fn no_number_is_larger_than_a_structured_field_may_say_and_none_is_left_beyond_a_limit() {
        for limit in [FIGURE_MAX - 1, FIGURE_MAX, FIGURE_MAX + 1, u64::MAX] {
            let quota = Quota { limit, left: limit, window_ms: u64::MAX, reset_in_ms: u64::MAX };
            for (name, text) in written(quota, quota, u64::MAX) {
                let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
                for number in numbers {
                    let number: u64 = number.parse().expect("digits");
                    assert!(number <= FIGURE_MAX, "{name}: {text}");
                }
            }
            let lines = written(quota, quota, 0);
            assert_eq!(lines[0].1, limit.min(FIGURE_MAX).to_string());
        }
        let quota = Quota { limit: 5, left: 7, window_ms: HOUR_MS, reset_in_ms: HOUR_MS };
        assert_eq!(written(quota, quota, 0)[1].1, "5");
    }

    #[test]
    fn times_are_written_as_openai_writes_them() {
        for (seconds, text) in
            [(0, "0s"), (1, "1s"), (59, "59s"), (60, "1m0s"), (3_599, "59m59s"), (3_600, "1h0m0s")]
        {
            assert_eq!(in_units(seconds), text);
        }
    }
}
