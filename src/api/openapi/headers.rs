//! Every header that a client may send or is answered (WIRE.md section 4), by its name.

use serde_json::{Map, Value, json};

/// A header of requests or of answers.
struct Header {
    name: &'static str,
    about: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Count,
    /// One of these.
    Among(&'static [&'static str]),
}

/// What clients may send; credentials are security schemes.
const SENT: &[Header] = &[
    Header {
        name: "X-Request-ID",
        about: "Kept as the request's id if it is 1 to 128 visible ASCII characters.",
        kind: Kind::Text,
    },
    Header {
        name: "Idempotency-Key",
        about: "The same key with the same body within 24 hours never charges twice: a finished \
                answer that was not streamed is replayed.",
        kind: Kind::Text,
    },
    Header {
        name: "X-Cashu-Stream",
        about: "`live` on a streamed request paid by `X-Cashu`: events flow as they arrive, and \
                the change comes as a comment of the stream, as a trailer where the protocol \
                allows, and from `POST /v1/balance/refund`. Without it events and change are held \
                until both are known.",
        kind: Kind::Text,
    },
    Header {
        name: "anthropic-version",
        about: "Goes to the upstream, as every header that names neither the client nor how it is \
                connected; upstreams of Anthropic's protocol ask for it.",
        kind: Kind::Text,
    },
    Header {
        name: "If-None-Match",
        about: "The `ETag` of what the client has already.",
        kind: Kind::Text,
    },
];

/// What is answered. Those of [`ALWAYS`] are on every answer.
const ANSWERED: &[Header] = &[
    Header { name: "X-Request-ID", about: "The request's id.", kind: Kind::Text },
    Header {
        name: "x-routstr-request-id",
        about: "The same id, for existing clients.",
        kind: Kind::Text,
    },
    Header {
        name: "Access-Control-Allow-Origin",
        about: "Which pages may call; no credentials are ambient.",
        kind: Kind::Text,
    },
    Header {
        name: "Access-Control-Expose-Headers",
        about: "What such a page may read.",
        kind: Kind::Text,
    },
    Header { name: "Access-Control-Allow-Methods", about: "On preflights.", kind: Kind::Text },
    Header {
        name: "Access-Control-Allow-Headers",
        about: "On preflights: the usual request headers and whatever else the preflight asks for.",
        kind: Kind::Text,
    },
    Header { name: "Access-Control-Max-Age", about: "On preflights: 86400.", kind: Kind::Count },
    Header {
        name: "Content-Encoding",
        about: "`gzip`, where the client accepts it and the body is worth it; never on events.",
        kind: Kind::Text,
    },
    Header { name: "Retry-After", about: "Seconds to wait.", kind: Kind::Count },
    Header {
        name: "x-should-retry",
        about: "`false` on errors to requests with `X-Cashu`: each retry would show fresh ecash.",
        kind: Kind::Among(&["false"]),
    },
    Header {
        name: "X-Cashu",
        about: "Ecash: the change, a refund, or the untouched token of a refused request. On a \
                401 or 402 to a request without ecash: what it takes to be served, as a payment \
                request (`creqA…`).",
        kind: Kind::Text,
    },
    Header {
        name: "X-Cashu-Refund",
        about: "The same ecash as in `X-Cashu`, unless configuration leaves it out.",
        kind: Kind::Text,
    },
    Header { name: "X-RateLimit-Limit", about: "Requests per minute.", kind: Kind::Count },
    Header { name: "X-RateLimit-Remaining", about: "What is left of them.", kind: Kind::Count },
    Header { name: "X-RateLimit-Reset", about: "When, in epoch seconds.", kind: Kind::Count },
    Header { name: "x-ratelimit-limit-requests", about: "As OpenAI names it.", kind: Kind::Count },
    Header {
        name: "x-ratelimit-remaining-requests",
        about: "As OpenAI names it.",
        kind: Kind::Count,
    },
    Header {
        name: "x-ratelimit-reset-requests",
        about: "As OpenAI names it: a duration such as `1m0s`.",
        kind: Kind::Text,
    },
    Header { name: "x-ratelimit-limit-tokens", about: "Tokens per hour.", kind: Kind::Count },
    Header {
        name: "x-ratelimit-remaining-tokens",
        about: "What is left of them.",
        kind: Kind::Count,
    },
    Header { name: "x-ratelimit-reset-tokens", about: "As a duration.", kind: Kind::Text },
    Header { name: "RateLimit", about: "The same by the IETF's draft.", kind: Kind::Text },
    Header { name: "RateLimit-Policy", about: "The limits by that draft.", kind: Kind::Text },
    Header {
        name: "X-Routstr-Cost-Msats",
        about: "The cost, where it is known when headers leave.",
        kind: Kind::Count,
    },
    Header {
        name: "X-Routstr-Input-Cost-Msats",
        about: "The part of it that is for input.",
        kind: Kind::Count,
    },
    Header {
        name: "X-Routstr-Output-Cost-Msats",
        about: "The part of it that is for output.",
        kind: Kind::Count,
    },
    Header {
        name: "X-Nutgate-Max-Output-Tokens",
        about: "The output limit, where it was lowered to what the balance pays for.",
        kind: Kind::Count,
    },
    Header {
        name: "Idempotency-Replayed",
        about: "`true`: this was answered before under the same `Idempotency-Key`.",
        kind: Kind::Among(&["true"]),
    },
    Header { name: "ETag", about: "Names this version of the document.", kind: Kind::Text },
    Header {
        name: "Content-Security-Policy",
        about: "Nothing from elsewhere, and no code but that of the page.",
        kind: Kind::Text,
    },
];

/// On every answer.
pub(super) const ALWAYS: &[&str] = &[
    "X-Request-ID",
    "x-routstr-request-id",
    "Access-Control-Allow-Origin",
    "Access-Control-Expose-Headers",
];

/// Where a key was shown and the ledger was asked.
pub(super) const STANDING: &[&str] = &[
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "RateLimit",
    "RateLimit-Policy",
];

/// Where something may be bought.
pub(super) const COSTS: &[&str] = &[
    "X-Routstr-Cost-Msats",
    "X-Routstr-Input-Cost-Msats",
    "X-Routstr-Output-Cost-Msats",
    "X-Nutgate-Max-Output-Tokens",
];

pub(super) const ECASH: &[&str] = &["X-Cashu", "X-Cashu-Refund"];

/// `components.parameters`
pub(super) fn parameters() -> Value {
    let parameter = |header: &Header| {
        json!({
            "name": header.name,
            "in": "header",
            "required": false,
            "description": header.about,
            "schema": header.schema(),
        })
    };
    named(SENT, parameter)
}

/// `components.headers`
pub(super) fn headers() -> Value {
    let described = |header: &Header| {
        json!({
            "required": ALWAYS.contains(&header.name) || header.name == "Retry-After",
            "description": header.about,
            "schema": header.schema(),
        })
    };
    named(ANSWERED, described)
}

/// References to headers of answers.
pub(super) fn references(names: &[&str]) -> Value {
    let reference = |name: &&str| {
        ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }))
    };
    Value::Object(names.iter().map(reference).collect())
}

fn named(headers: &[Header], described: impl Fn(&Header) -> Value) -> Value {
    let entries = headers.iter().map(|header| (header.name.to_owned(), described(header)));
    Value::Object(entries.collect::<Map<_, _>>())
}

impl Header {
    fn schema(&self) -> Value {
        match self.kind {
            Kind::Text => json!({ "type": "string" }),
            Kind::Count => json!({ "type": "integer", "minimum": 0 }),
            Kind::Among(values) => json!({ "type": "string", "enum": values }),
        }
    }
}
