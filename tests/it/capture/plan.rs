//! What is asked for, decided before the first request is made: the same for the same seed.

use crate::support::{Value, json, with};

use super::Policy;

/// The ways in which an upstream answers: what a model of that way is called, which upstream is
/// asked first, and for which model. `after-` has a second one.
pub(super) const WAYS: [(&str, &str, &str); 14] = [
    ("plain", "sandbox", "demo"),
    ("silent", "sandbox", "demo-no-usage"),
    ("drops", "sandbox", "demo-drops-mid-stream"),
    ("paced", "sandbox", "demo-paced"),
    ("paced-silent", "sandbox", "demo-paced-no-usage"),
    ("slow", "sandbox", "demo-slow"),
    ("stalls", "sandbox", "demo-hangs-mid-stream"),
    ("hangs", "sandbox", "demo-hangs"),
    ("fails", "sandbox", "demo-error-event"),
    ("broken", "sandbox", "demo-500"),
    ("limited", "limited", "demo-429"),
    ("after-503", "busy", "demo-503"),
    ("after-429", "limited", "demo-429"),
    ("after-down", "down", "demo"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payment {
    Key,
    XCashu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Chat,
    Completions,
    Responses,
    Messages,
}

impl Route {
    const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Responses, Self::Messages];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    /// How many words an event of a stream brings: one or none.
    pub(super) fn words(self, event: &Value) -> u64 {
        let text = match self {
            Self::Chat => &event["choices"][0]["delta"]["content"],
            Self::Completions => &event["choices"][0]["text"],
            Self::Responses if event["type"] == "response.output_text.delta" => &event["delta"],
            Self::Responses => &Value::Null,
            Self::Messages => &event["delta"]["text"],
        };
        u64::from(text.as_str().is_some_and(|text| !text.is_empty()))
    }
}

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    Never,
    BeforeTheHead,
    AfterWords(u64),
    AfterTheLast,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) policy: Policy,
    pub(super) way: &'static str,
    pub(super) route: Route,
    pub(super) payment: Payment,
    pub(super) stream: bool,
    pub(super) leaves: Leaves,
    pub(super) limit: u64,
    pub(super) body: String,
}

impl Plan {
    /// So many requests to the models of this policy.
    pub(super) fn mix(policy: Policy, count: u64) -> Vec<Self> {
        let seed = policy.model("").bytes().map(u64::from).sum();
        let mut random = Random(seed);
        (0..count).map(|nth| Self::one(policy, nth, &mut random)).collect()
    }

    fn one(policy: Policy, nth: u64, random: &mut Random) -> Self {
        let (way, leaves) = match random.below(100) {
            0..20 => ("plain", Leaves::Never),
            20..30 => ("silent", Leaves::Never),
            30..38 => ("drops", Leaves::Never),
            38..42 => ("slow", Leaves::BeforeTheHead),
            42..46 => ("paced", Leaves::BeforeTheHead),
            46..58 => ("paced", Leaves::AfterWords(1 + random.below(12))),
            58..66 => ("paced-silent", Leaves::AfterWords(1 + random.below(12))),
            66..72 => ("plain", Leaves::AfterTheLast),
            72..77 => ("after-503", Leaves::Never),
            77..82 => ("after-429", Leaves::Never),
            82..87 => ("after-down", Leaves::Never),
            87..89 => ("limited", Leaves::Never),
            89..91 => ("broken", Leaves::Never),
            91..94 => ("slow", Leaves::Never),
            94..97 => ("fails", Leaves::Never),
            97 => ("stalls", Leaves::Never),
            98 => ("stalls", Leaves::AfterWords(1 + random.below(5))),
            _ => ("hangs", Leaves::BeforeTheHead),
        };
        // Who sees the words as they come has a stream that flows.
        let flows = matches!(leaves, Leaves::AfterWords(_) | Leaves::AfterTheLast);
        let stream = flows || random.below(2) == 0;
        let payment = if !flows && random.below(4) == 0 { Payment::XCashu } else { Payment::Key };
        let limit = if flows { 20 } else { 3 + random.below(30) };
        let route = Route::ALL[usize::try_from(random.below(4)).unwrap()];
        let text = "What is a nut?".repeat(usize::try_from(1 + random.below(9)).unwrap());
        let body = body(route, &policy.model(way), &text, limit);
        let body = if stream { with(body, json!({"stream": true})) } else { body };
        let id = format!("{}-{nth}", policy.model(way));
        Self { id, policy, way, route, payment, stream, leaves, limit, body: body.to_string() }
    }

    /// Whether its events reach the client as they come.
    pub(super) fn flows(&self) -> bool {
        self.stream && self.payment == Payment::Key
    }
}

fn body(route: Route, model: &str, text: &str, limit: u64) -> Value {
    let messages = json!([{"role": "user", "content": text}]);
    match route {
        Route::Chat | Route::Messages => {
            json!({"model": model, "messages": messages, "max_tokens": limit})
        }
        Route::Completions => json!({"model": model, "prompt": text, "max_tokens": limit}),
        Route::Responses => json!({"model": model, "input": text, "max_output_tokens": limit}),
    }
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
