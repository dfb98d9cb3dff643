//! Anybody can compute what a request cost: the price that `GET /v1/models` publishes, times what
//! its receipt in `GET /v1/balance/history` says was used, is the cost to the msat. Here with exact
//! sums of the tests' own.

use std::collections::{BTreeMap, BTreeSet};

use nutgate_sandbox::{Upstream, UpstreamOptions, upstream::DEFAULT_API_KEY};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::{
    Ask, Dice, ImageRate, Key, Kind, Misbehaviour, Pay, Purse, Rates, Setting, Sold, Used, Value,
    Way, World, json, priced, tariff, upstream, with,
};

/// What a client reads of the list of models. Numbers stay text.
#[derive(Deserialize)]
struct Models {
    data: Vec<Listed>,
}

/// A model, or one of those who provide it.
#[derive(Deserialize)]
struct Listed {
    id: String,
    sats_pricing: BTreeMap<String, Box<RawValue>>,
    #[serde(default)]
    image_prices: Vec<ImagePrice>,
    /// Where they differ.
    #[serde(default)]
    providers: Vec<Listed>,
}

#[derive(Deserialize)]
struct ImagePrice {
    size: Option<String>,
    quality: Option<String>,
    sats: Box<RawValue>,
}

impl Models {
    async fn published(world: &World) -> Self {
        let listed = world.fetch("/v1/models", Pay::Nothing).await.expect(200);
        serde_json::from_slice(&listed.body).unwrap()
    }

    /// What a model costs at one of its upstreams.
    fn rates(&self, model: &str, upstream: &str) -> Rates {
        let model = self.data.iter().find(|listed| listed.id == model).expect("a model");
        model.providers.iter().find(|provider| provider.id == upstream).unwrap_or(model).rates()
    }
}

impl Listed {
    fn rates(&self) -> Rates {
        let rate = |name: &str| self.sats_pricing.get(name).map_or(0, |raw| decimal(raw));
        let image = |row: &ImagePrice| ImageRate {
            size: row.size.clone(),
            quality: row.quality.clone(),
            rate: decimal(&row.sats),
        };
        Rates {
            request: rate("request"),
            input: rate("prompt"),
            cached_input: rate("input_cache_read"),
            cache_write: rate("input_cache_write"),
            output: rate("completion"),
            reasoning: rate("internal_reasoning"),
            input_image: rate("image"),
            web_search: rate("web_search"),
            audio_second: rate("audio_second"),
            character: rate("character"),
            search_unit: rate("search_unit"),
            upstream_cost: rate("upstream_cost"),
            images: self.image_prices.iter().map(image).collect(),
        }
    }
}

/// A number as written, in 10^-12.
fn decimal(raw: &RawValue) -> u128 {
    let (whole, fraction) = raw.get().split_once('.').unwrap_or((raw.get(), ""));
    assert!(fraction.len() <= 12, "{raw} has more decimals than a price may have");
    format!("{whole}{fraction:0<12}").parse().unwrap()
}

/// What a receipt says that was used.
fn used(usage: &Value) -> Used {
    let count = |name: &str| usage[name].as_u64().unwrap_or(0);
    let text = |name: &str| usage[name].as_str().map(str::to_owned);
    Used {
        input: count("input_tokens"),
        cached_input: count("cached_input_tokens"),
        cache_write: count("cache_write_tokens"),
        output: count("output_tokens"),
        reasoning: count("reasoning_tokens"),
        input_images: count("input_images"),
        images: count("images"),
        web_searches: count("web_searches"),
        audio_ms: count("audio_ms"),
        characters: count("characters"),
        search_units: count("search_units"),
        cost_nano_usd: usage["upstream_cost_nano_usd"].as_u64(),
        size: text("image_size"),
        quality: text("image_quality"),
    }
}

/// Every receipt of an account, once nothing of it is open.
async fn receipts(world: &World, pay: Pay<'_>) -> Vec<Value> {
    world.settled(pay).await;
    let (mut all, mut query) = (Vec::new(), "limit=100".to_owned());
    loop {
        let page = world.fetch(&format!("/v1/balance/history?{query}"), pay).await.expect(200);
        let page = page.json();
        all.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("limit=100&cursor={cursor}"),
            None => break,
        }
    }
    all.retain(|entry| entry["kind"] == "request");
    all
}

/// Recomputes receipts from the published prices; answers with what they add up to.
#[track_caller]
fn check_recomputed(models: &Models, receipts: &[Value]) -> u64 {
    let mut spent = 0;
    for receipt in receipts {
        let cost = receipt["cost_msats"].as_u64().unwrap();
        let owed = cost + receipt["shortfall_msats"].as_u64().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let usage = &receipt["usage"];
        let computed = match receipt["usage_source"].is_null() {
            // Nothing was used.
            true => 0,
            false => {
                let rates = models.rates(&text(&receipt["model"]), &text(&usage["upstream"]));
                rates.cost(&used(usage))
            }
        };
        assert_eq!(computed, owed, "{receipt:#}");
        spent += cost;
    }
    spent
}

/// What a shop has: models in sats, in dollars and at the upstream's cost, each from two upstreams
/// that charge differently, and by every policy of missing usage.
async fn shop() -> (World, Upstream) {
    let other = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let dollars = json!({
        "currency": "usd", "input": 0.15, "output": 0.6, "cached_input": 0.075,
        "cache_write": 0.187_5, "reasoning": 0.77, "request": 0.000_123, "input_image": 0.001_1,
        "web_search": 0.01, "audio_minute": 0.006, "characters": 15, "search_unit": 0.002,
        "images": [{"size": "1024x1024", "price": 0.011}, {"quality": "hd", "price": 0.08},
                   {"price": 0.040_7}],
    });
    let margin = with(dollars.clone(), json!({"upstream_cost": 1.07, "currency": "sat"}));
    let mut models = Vec::new();
    for (name, price, theirs) in [
        ("sats", tariff(), dollars.clone()),
        ("dollars", dollars.clone(), with(dollars, json!({"output": 1.234_567_891}))),
        ("margin", margin.clone(), tariff()),
    ] {
        for ending in ENDINGS {
            let id = format!("{name}{ending}");
            let upstreams = json!([
                {"name": "sandbox", "weight": 2}, {"name": "other", "price": theirs},
            ]);
            let policy = match ending {
                "-no-usage" => "floor",
                "-error-event" => "ceiling",
                _ => "estimate",
            };
            let more = json!({"upstreams": upstreams, "select": "weight", "missing_usage": policy});
            models.push(with(priced(&id, price.clone()), more));
        }
    }
    let counted = json!({
        "currency": "sat", "input": 0, "request": 1.5, "characters": 1_234.567_8,
        "images": [{"price": 3.123_456_789}],
    });
    let only = json!({"routes": ["images", "image_edits", "speech"]});
    models.push(with(priced("counted", counted), only));
    let config = json!({"btc_usd": 97_531.27});
    let more_upstreams = vec![upstream("other", &other, DEFAULT_API_KEY)];
    let setting = Setting { config, more_upstreams, more_models: models, ..Setting::default() };
    (World::with(setting).await, other)
}

const ENDINGS: [&str; 11] = [
    "",
    "-cached",
    "-reasoning",
    "-web-search",
    "-by-tokens",
    "-image-usage",
    "-usd-cost",
    "-no-usage",
    "-error-event",
    "-400",
    "-image-usage-usd-cost",
];

/// Anything that this shop sells.
fn anything(dice: &mut Dice) -> Ask {
    let kinds: Vec<Kind> = Kind::all().collect();
    let kind = *dice.pick(&kinds);
    let model = format!("{}{}", dice.pick(&["sats", "dollars", "margin"]), dice.pick(&ENDINGS));
    let images = kind.sold.makes_images() || kind.sold == Sold::Speech;
    let model = if images && dice.below(4) == 0 { "counted".to_owned() } else { model };
    let ask = kind.ask(&model);
    match kind.sold {
        sold if sold.makes_images() => ask.with(json!({
            "size": dice.pick(&["1024x1024", "1536x1024", "auto"]),
            "quality": dice.pick(&["high", "hd", "auto"]),
        })),
        Sold::Responses | Sold::Completions | Sold::Chat | Sold::Messages => {
            ask.with(json!({"max_tokens": 1 + dice.below(30)}))
        }
        sold if sold.listens() && !kind.streamed => {
            ask.with(json!({"response_format": dice.pick(&["json", "verbose_json", "srt"])}))
        }
        Sold::Speech => ask.with(json!({"input": "n\u{fc}t ".repeat(1 + dice.index(90))})),
        Sold::Rerank => ask.with(json!({"documents": vec!["a nut"; 1 + dice.index(250)]})),
        _ => ask,
    }
}

#[tokio::test]
async fn every_receipt_of_a_random_mix_can_be_computed_from_published_prices() {
    let (world, other) = shop().await;
    let models = Models::published(&world).await;
    let mut dice = Dice::new(0x6e75_7467_6174_6531);
    let key = world.key(200_000).await;
    let mut all = Vec::new();
    for nth in 0..REQUESTS {
        let ask = anything(&mut dice);
        let paid_once = nth % 20 == 0;
        let purse = if paid_once { Some(world.purse(Way::XCashu).await) } else { None };
        let pay = purse.as_ref().map_or(Pay::from(&key), Purse::pay);
        let answer = world.ask(pay, &ask).await;
        assert!([200, 400].contains(&answer.status), "{} {}", ask.fields, answer.text());
        if let Some(purse) = purse {
            let own = receipts(&world, Pay::Bearer(&purse.ecash)).await;
            let cost = world.cost(&purse, Some(&answer)).await;
            assert_eq!(check_recomputed(&models, &own), cost);
            all.extend(own);
        }
    }
    let own = receipts(&world, Pay::from(&key)).await;
    assert_eq!(check_recomputed(&models, &own), world.info(&key).await.spent);
    all.extend(own);
    assert_eq!(all.len(), REQUESTS, "one for every request");
    let met = |name: &str| -> BTreeSet<String> {
        all.iter().filter_map(|receipt| receipt[name].as_str()).map(str::to_owned).collect()
    };
    let routes: BTreeSet<String> = Sold::ALL.map(|sold| sold.path().to_owned()).into();
    assert_eq!(met("route"), routes);
    let sources = ["ceiling", "counted", "estimated", "floor", "upstream"];
    assert_eq!(met("usage_source"), sources.map(str::to_owned).into());
    assert!(world.upstream.count() > 0 && other.count() > 0, "both have served");
    world.check_balanced().await;
}

const REQUESTS: usize = 220;

/// One of everything, so that no route, price or policy is left to chance.
#[tokio::test]
async fn every_receipt_of_every_route_and_price_can_be_computed() {
    let (world, _other) = shop().await;
    let models = Models::published(&world).await;
    let key = world.key(400_000).await;
    let mut bought = 0;
    for kind in Kind::all() {
        for price in ["sats", "dollars", "margin"] {
            for ending in ["", "-usd-cost", "-no-usage", "-error-event"] {
                world.ask(&key, &kind.ask(&format!("{price}{ending}"))).await.expect(200);
                bought += 1;
            }
        }
    }
    let receipts = receipts(&world, Pay::from(&key)).await;
    assert_eq!(receipts.len(), bought);
    assert_eq!(check_recomputed(&models, &receipts), world.info(&key).await.spent);
}

#[tokio::test]
async fn a_cost_above_the_balance_is_on_the_receipt_in_both_its_parts() {
    let price = json!({"currency": "sat", "input": 1, "output": 1, "upstream_cost": 100_000});
    let config = json!({"btc_usd": 100_000});
    let more_models = vec![priced("dear-usd-cost", price)];
    let world = World::with(Setting { config, more_models, ..Setting::default() }).await;
    let key = world.key(20).await;
    world.ask(&key, &Sold::Chat.whole().ask("dear-usd-cost")).await.expect(200);
    let receipts = receipts(&world, Pay::from(&key)).await;
    assert_eq!(receipts[0]["cost_msats"], 20_000);
    // 27 millionths of a dollar, which is a thousand sats.
    assert_eq!(receipts[0]["shortfall_msats"], 27 * 100_000 - 20_000);
    let models = Models::published(&world).await;
    assert_eq!(check_recomputed(&models, &receipts), 20_000);
    assert_eq!(world.info(&key).await.available, 0);
}

/// The components that WIRE.md names: by what the configuration calls each, on a request that
/// uses so many of it.
fn components() -> Vec<(&'static str, &'static str, Ask, u64)> {
    let whole = |sold: Sold, misbehaviour: Option<Misbehaviour>| {
        sold.whole().ask(misbehaviour.map_or("", Misbehaviour::suffix))
    };
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}});
    let seen = json!({"messages": [{"role": "user", "content": [picture, picture]}]});
    let search = json!({"tools": [{"type": "web_search"}]});
    vec![
        ("request", "request", whole(Sold::Chat, None), 1),
        ("image", "input_image", whole(Sold::Chat, None).with(seen), 2),
        (
            "web_search",
            "web_search",
            whole(Sold::Responses, Some(Misbehaviour::WebSearch)).with(search),
            2,
        ),
        (
            "internal_reasoning",
            "reasoning",
            whole(Sold::Messages, Some(Misbehaviour::Reasoning)),
            10,
        ),
        ("input_cache_read", "cached_input", whole(Sold::Messages, Some(Misbehaviour::Cached)), 6),
        ("input_cache_write", "cache_write", whole(Sold::Messages, Some(Misbehaviour::Cached)), 3),
    ]
}

#[tokio::test]
async fn a_component_that_costs_more_makes_a_request_cost_so_much_more() {
    let per_million = ["reasoning", "cached_input", "cache_write"];
    let mut more_models = Vec::new();
    for (_, key, ask, _) in components() {
        // A sat more for each.
        let more = if per_million.contains(&key) { 1_000_000 } else { 1 };
        let raised = tariff()[key].as_u64().unwrap() + more;
        let (plain, dearer) =
            (format!("plain-{key}{}", ask.model()), format!("dearer-{key}{}", ask.model()));
        more_models.push(priced(&plain, tariff()));
        more_models.push(priced(&dearer, with(tariff(), json!({ key: raised }))));
    }
    let world = World::with(Setting { more_models, ..Setting::default() }).await;
    let models = Models::published(&world).await;
    let key = world.key(100_000).await;
    for (component, name, ask, count) in components() {
        let mut costs = Vec::new();
        let mut published = Vec::new();
        for price in ["plain", "dearer"] {
            let model = format!("{price}-{name}{}", ask.model());
            costs.push(cost_of(&world, &key, ask.clone().with(json!({ "model": model }))).await);
            let listed = models.data.iter().find(|listed| listed.id == model).unwrap();
            published.push(decimal(&listed.sats_pricing[component]));
        }
        assert_eq!(costs[1] - costs[0], 1000 * count, "{component}");
        assert_eq!(published[1] - published[0], 1_000_000_000_000, "{component}");
    }
}

/// Bodies of the same length, so that nothing but the price differs.
async fn cost_of(world: &World, key: &Key, ask: Ask) -> u64 {
    let before = world.settled(key).await.spent;
    world.ask(key, &ask).await.expect(200);
    world.settled(key).await.spent - before
}
