//! What is owed, computed by the tests' own arithmetic in whole msat.

use serde_json::{Value, json};

/// The price of every model of the world, in msat per token and per request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Price {
    pub(crate) request: u64,
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// Primes and their like, so that a sum shows what it was made of. Cached input is 500 sat per
/// million: half a msat per token.
pub(crate) const PRICE: Price = Price { request: 11_000, input: 2, output: 7 };

impl Price {
    pub(crate) fn config() -> Value {
        json!({
            "currency": "sat", "request": 11, "input": 2_000, "cached_input": 500, "output": 7_000,
        })
    }

    pub(crate) const fn cost(self, input_tokens: u64, output_tokens: u64) -> u64 {
        self.request + self.input * input_tokens + self.output * output_tokens
    }

    /// The cost when `cached` of the input tokens were read from a cache.
    pub(crate) const fn cost_cached(self, input: u64, cached: u64, output: u64) -> u64 {
        // Half msats are rounded up once, in the sum.
        (2 * self.cost(input - cached, output) + cached).div_ceil(2)
    }

    /// What is reserved for a body of this length.
    pub(crate) const fn ceiling(self, body_bytes: u64, output_limit: u64, n: u64) -> u64 {
        self.cost(body_bytes, output_limit * n)
    }

    /// What an answer without usage costs: four bytes are a token, and an event is at least one.
    pub(crate) fn estimate(self, body_bytes: u64, deliveries: u64, text_bytes: u64) -> u64 {
        if deliveries == 0 && text_bytes == 0 {
            return 0;
        }
        self.cost(body_bytes.div_ceil(4), deliveries.max(text_bytes.div_ceil(4)))
    }
}

/// The length of a text in bytes, as money counts it.
pub(crate) fn length(text: impl AsRef<[u8]>) -> u64 {
    text.as_ref().len().try_into().unwrap()
}

/// How the scripted upstream counts: a token per four characters and three per message.
pub(crate) fn prompt_tokens(body: &Value) -> u64 {
    let of = |message: &Value| {
        let characters = message["content"].as_str().unwrap().chars().count();
        u64::try_from(characters).unwrap()
    };
    let messages = body["messages"].as_array().unwrap();
    messages.iter().map(of).sum::<u64>().div_ceil(4) + 3 * u64::try_from(messages.len()).unwrap()
}
