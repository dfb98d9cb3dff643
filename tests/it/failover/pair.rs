//! Two upstreams, the second dearer, and models that both of them serve.

use nutgate_sandbox::upstream::DEFAULT_API_KEY;
use nutgate_sandbox::{Upstream, UpstreamOptions};

use crate::support::{
    Key, MODEL_OUTPUT_TOKENS, Price, Setting, Value, World, json, length, model, upstream, with,
};

/// What the second upstream charges.
pub(super) const DEAR: Price = Price { request: 23_000, input: 4, output: 14 };

fn dear() -> Value {
    json!({"currency": "sat", "request": 23, "input": 4_000, "output": 14_000})
}

/// Two upstreams, the second dearer, and models that both of them serve.
pub(super) struct Pair {
    pub(super) world: World,
    pub(super) first: Upstream,
    pub(super) second: Upstream,
}

/// How the two are left alone, and how the first answers beside that.
pub(super) struct Terms {
    pub(super) failures: u64,
    pub(super) cooldown: &'static str,
    pub(super) first: UpstreamOptions,
    pub(super) second: UpstreamOptions,
    /// Merged into the first one's configuration.
    pub(super) first_config: Value,
    pub(super) config: Value,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            failures: 1000,
            cooldown: "1h",
            first: UpstreamOptions::default(),
            second: UpstreamOptions::default(),
            first_config: json!({}),
            config: json!({}),
        }
    }
}

impl Pair {
    pub(super) async fn start() -> Self {
        Self::with(Terms::default()).await
    }

    pub(super) async fn with(terms: Terms) -> Self {
        let first = Upstream::start(terms.first).await.unwrap();
        let second = Upstream::start(terms.second).await.unwrap();
        let health = json!({"failures": terms.failures, "cooldown": terms.cooldown});
        let described = |name, at| {
            with(upstream(name, at, DEFAULT_API_KEY), json!({ "health": health.clone() }))
        };
        let more_upstreams = vec![
            with(described("first", &first), terms.first_config),
            described("second", &second),
        ];
        let config = terms.config;
        let setting = Setting { more_upstreams, more_models: models(), config, ..Setting::msat() };
        let world = World::with(setting).await;
        Self { world, first, second }
    }

    /// Buys with the key, and answers with the receipt of that.
    pub(super) async fn receipt(&self, key: &Key, body: &Value) -> Value {
        let answer = self.world.chat(key, body).await.expect(200);
        let id = answer.header("x-request-id").unwrap().to_owned();
        self.world.settled(key).await;
        let receipts = self.world.receipts(key).await;
        let mut own = receipts.into_iter().filter(|receipt| receipt["request_id"] == id);
        let receipt = own.next().expect("a receipt");
        assert_eq!(own.next(), None, "billed once");
        receipt
    }

    /// The body is served by this upstream, and charged once at its price.
    pub(super) async fn check_served(&self, key: &Key, body: &Value, by: &str, price: Price) {
        let receipt = self.receipt(key, body).await;
        assert_eq!(receipt["usage"]["upstream"], by, "{receipt}");
        assert_eq!(receipt["cost_msats"], price.cost(7, 20), "{receipt}");
    }
}

/// Those that both serve, by the first in order or by another rule.
fn models() -> Vec<Value> {
    let both = json!([{"name": "first"}, {"name": "second", "price": dear()}]);
    let turned = json!([{"name": "second", "price": dear()}, {"name": "first"}]);
    let serve = |id: &str, members: Value| with(model(id, &[]), members);
    vec![
        serve("pair", json!({"upstreams": both, "upstream_model": "demo"})),
        serve("pair-slow", json!({"upstreams": both, "upstream_model": "demo-slow"})),
        serve("turned", json!({"upstreams": turned, "upstream_model": "demo"})),
        serve(
            "turned-ceiling",
            json!({
                "upstreams": turned, "upstream_model": "demo-no-usage",
                "missing_usage": "ceiling",
            }),
        ),
        serve(
            "by-price",
            json!({"upstreams": turned, "upstream_model": "demo", "select": "price"}),
        ),
        serve(
            "by-weight",
            json!({
                "upstreams": [{"name": "first", "weight": 3}, {"name": "second"}],
                "upstream_model": "demo", "select": "weight",
            }),
        ),
        serve(
            "by-latency",
            json!({
                "upstreams": [
                    {"name": "first", "upstream_model": "demo-slow"}, {"name": "second"},
                ],
                "upstream_model": "demo", "select": "latency",
            }),
        ),
    ]
}

/// What is reserved at this price.
pub(super) fn ceiling(price: Price, body: &Value) -> u64 {
    price.ceiling(length(body.to_string()), MODEL_OUTPUT_TOKENS, 1)
}
