//! What is offered of a list, at which price, and what is left out.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, Machine};

const CONFIG: &str = "
btc_usd: 100000
upstreams: [{name: up, base_url: 'https://up.example', models: {}}]
";

fn upstream() -> Upstream {
    Config::parse("test", CONFIG, &Machine).unwrap().upstreams.remove(0)
}

fn policy() -> ListingPolicy {
    upstream().models.unwrap()
}

fn list_by(policy: &ListingPolicy, models: &[Value]) -> Listing {
    let document = json!({"object": "list", "data": models}).to_string();
    read(document.as_bytes(), &upstream(), policy).unwrap()
}

fn list(models: &[Value]) -> Listing {
    list_by(&policy(), models)
}

/// An entry like OpenRouter's, with these prices.
fn entry(id: &str, pricing: Value) -> Value {
    json!({
        "id": id, "name": "Maker: Model", "description": "writes", "created": 1_700_000_000,
        "context_length": 128_000, "architecture": {"modality": "text->text"},
        "top_provider": {"max_completion_tokens": 16_384, "is_moderated": true},
        "pricing": pricing,
    })
}

/// The usual prices, and these.
fn pricing(more: Value) -> Value {
    let mut pricing = json!({"prompt": "0.00000015", "completion": "0.0000006"});
    pricing.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pricing
}

fn ids(listing: &Listing) -> Vec<&str> {
    listing.models.iter().map(|model| model.id.as_str()).collect()
}

/// What a model costs with these prices, or why it is left out.
fn priced(pricing: Value) -> Result<Price, Reason> {
    let mut listing = list(&[entry("m", pricing)]);
    match listing.models.pop() {
        Some(model) => Ok(model.price),
        None => Err(*listing.left_out.0.keys().next().unwrap()),
    }
}

const fn usd(billionths: u128) -> Decimal {
    Decimal { billionths }
}

#[test]
fn an_entry_with_prices_is_a_model_for_sale() {
    let listing = list(&[entry("maker/model", pricing(json!({})))]);
    assert!(listing.left_out.is_empty());
    let model = &listing.models[0];
    assert_eq!((model.id.as_str(), model.upstream_model.as_str()), ("maker/model", "maker/model"));
    assert_eq!((model.name.as_str(), model.description.as_str()), ("Maker: Model", "writes"));
    assert_eq!((model.created, model.owned_by.as_str()), (1_700_000_000, "maker"));
    assert_eq!((model.context_length, model.max_output_tokens), (128_000, 16_384));
    let served_by = ServedBy {
        upstream: "up".to_owned(),
        weight: 1,
        upstream_model: "maker/model".to_owned(),
        price: None,
    };
    assert_eq!((&model.upstreams, &model.routes), (&vec![served_by], &ROUTES.to_vec()));
    assert_eq!(model.price.currency, Currency::Usd);
    assert_eq!((model.price.input, model.price.output), (usd(150_000_000), usd(600_000_000)));
}

#[test]
fn what_is_not_known_of_a_model_is_said_in_the_safe_way() {
    let bare = json!({"id": "m", "context_length": 1000, "pricing": pricing(json!({})),
        "top_provider": {"max_completion_tokens": null}, "name": 5, "created": "x"});
    let listing = list(&[bare]);
    let model = &listing.models[0];
    assert_eq!(model.max_output_tokens, 1000, "as much as the context is reserved");
    assert_eq!((model.name.as_str(), model.owned_by.as_str(), model.created), ("m", "up", 0));
}

#[test]
fn every_price_is_charged_and_none_is_free_because_it_is_missing() {
    let given = json!({
        "request": "0.01", "image": 0.005, "web_search": "0.004", "internal_reasoning": "0.000002",
        "input_cache_read": "0.0000000375", "input_cache_write": "1.875e-7", "discount": 0.5,
    });
    let price = priced(pricing(given)).unwrap();
    assert_eq!(price.request, usd(10_000_000));
    assert_eq!(price.cached_input, Some(usd(37_500_000)));
    assert_eq!(price.cache_write, Some(usd(187_500_000)));
    assert_eq!(price.reasoning, Some(usd(2_000_000_000)));
    assert_eq!((price.input_image, price.web_search), (usd(5_000_000), usd(4_000_000)));
    // Zeros and nothing are the same, and neither is free: they go with the prompt or the output.
    for zero in [json!("0"), json!(0), json!("0.000"), Value::Null] {
        let keys = ["internal_reasoning", "input_cache_read", "input_cache_write"];
        let given: serde_json::Map<_, _> =
            keys.map(|key| (key.to_owned(), zero.clone())).into_iter().collect();
        let price = priced(pricing(Value::Object(given))).unwrap();
        let units = [price.cached_input, price.cache_write, price.reasoning];
        assert_eq!(units, [None; 3], "{zero}");
    }
    let free = priced(json!({"prompt": "0", "completion": "0"})).unwrap();
    assert_eq!((free.input, free.output), (usd(0), usd(0)), "zero is a price");
}

#[test]
fn a_model_that_cannot_be_charged_for_is_left_out_for_a_reason() {
    let huge = "1".repeat(40);
    for (pricing, reason) in [
        (Value::Null, Reason::NoPrice),
        (json!({}), Reason::NoPrice),
        (json!({"prompt": "1"}), Reason::NoPrice),
        (json!({"prompt": null, "completion": "1"}), Reason::NoPrice),
        (json!({"prompt": "-1", "completion": "-1"}), Reason::NegativePrice),
        (pricing(json!({"web_search": -0.1})), Reason::NegativePrice),
        (pricing(json!({"what_is_this": "-1"})), Reason::NegativePrice),
        (pricing(json!({"prompt": "free"})), Reason::UnreadablePrice),
        (pricing(json!({"prompt": ""})), Reason::UnreadablePrice),
        (pricing(json!({"prompt": huge})), Reason::UnreadablePrice),
        (pricing(json!({"prompt": "1000"})), Reason::UnreadablePrice),
        (pricing(json!({"prompt": {"tiers": []}})), Reason::UnreadablePrice),
        (pricing(json!({"request": true})), Reason::UnreadablePrice),
        (json!("free"), Reason::UnreadablePrice),
        (pricing(json!({"audio": "0.000001"})), Reason::UnknownUnit),
    ] {
        assert_eq!(priced(pricing.clone()).unwrap_err(), reason, "{pricing}");
    }
    // One ten-billionth below the bound is a price still.
    assert!(priced(pricing(json!({"prompt": "999.999999999999999"}))).is_ok());
    assert!(priced(pricing(json!({"audio": "0", "max_cost": 5}))).is_ok());
}

#[test]
fn a_model_without_a_length_or_a_usable_id_is_left_out() {
    let without = |key: &str, value: Value| {
        let mut entry = entry("m", pricing(json!({})));
        entry[key] = value;
        let listing = list(&[entry]);
        assert!(listing.models.is_empty());
        *listing.left_out.0.keys().next().unwrap()
    };
    for length in [Value::Null, json!(0), json!(-1), json!(1.5), json!(1_000_000_001), json!({})] {
        assert_eq!(without("context_length", length), Reason::NoContextLength);
    }
    for id in [Value::Null, json!(""), json!("a b"), json!("a\n"), json!(5)] {
        assert_eq!(without("id", id), Reason::BadId);
    }
    assert_eq!(without("id", json!("x".repeat(ID_BYTES_MAX + 1))), Reason::BadId);
    let longest = "x".repeat(ID_BYTES_MAX);
    assert_eq!(ids(&list(&[entry(&longest, pricing(json!({})))])), [longest]);
}

#[test]
fn a_bad_entry_and_one_that_is_listed_twice_cost_only_themselves() {
    let good = |id| entry(id, pricing(json!({})));
    let dearer = entry("twice", pricing(json!({"prompt": "1"})));
    let listing = list(&[json!(5), good("twice"), good("a"), dearer, json!({}), good("b")]);
    assert_eq!(ids(&listing), ["a", "b"]);
    assert_eq!(listing.left_out.to_string(), "2 bad_id (\"\"), 2 listed_twice (\"twice\")");
    let openai = json!({"id": "gpt", "object": "model", "created": 1, "owned_by": "openai"});
    assert_eq!(list(&[openai]).left_out.to_string(), "1 no_price (\"gpt\")");
}

#[test]
fn what_is_no_list_is_not_taken_for_an_empty_one() {
    for document in ["", "[]", "{}", "null", r#"{"data": {}}"#, r#"{"data": [1}"#] {
        assert!(read(document.as_bytes(), &upstream(), &policy()).is_err(), "{document}");
    }
    assert!(list(&[]).models.is_empty());
}

#[test]
fn a_list_ends_at_its_bound() {
    let models: Vec<Value> =
        (0..MODELS_MAX + 2).map(|n| entry(&n.to_string(), pricing(json!({})))).collect();
    let listing = list(&models);
    assert_eq!(listing.models.len(), MODELS_MAX);
    assert_eq!(listing.left_out.to_string(), "2 too_many (\"5000\")");
    assert!(list(&models[..MODELS_MAX]).left_out.is_empty());
}

#[test]
fn long_words_are_cut_at_a_character() {
    let mut entry = entry("m", pricing(json!({})));
    entry["name"] = json!("é".repeat(NAME_BYTES_MAX));
    entry["description"] = json!("x".repeat(DESCRIPTION_BYTES_MAX + 1));
    let listing = list(&[entry]);
    assert_eq!(listing.models[0].name, "é".repeat(NAME_BYTES_MAX / 2));
    assert_eq!(listing.models[0].description.len(), DESCRIPTION_BYTES_MAX);
}

#[test]
fn the_policy_says_which_at_what_price_and_under_which_name() {
    let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
    let policy = ListingPolicy {
        include: words(&["openai/*", "*/claude-*"]),
        exclude: words(&["*:free", "openai/old"]),
        markup_percent: 10,
        id_prefix: "or/".to_owned(),
        ..policy()
    };
    let names =
        ["openai/a", "openai/a:free", "openai/old", "x/claude-1", "x/other", "claude-1", "openai"];
    let models: Vec<Value> = names.iter().map(|id| entry(id, pricing(json!({})))).collect();
    let listing = list_by(&policy, &models);
    assert_eq!(ids(&listing), ["or/openai/a", "or/x/claude-1"]);
    assert!(listing.left_out.is_empty(), "what is not wanted is not missed");
    assert_eq!(listing.models[0].upstream_model, "openai/a");
    assert_eq!(listing.models[0].price.input, usd(165_000_000));
}

#[test]
fn a_star_stands_for_any_text() {
    for (pattern, text) in
        [("*", ""), ("*", "a/b"), ("a*", "a"), ("a*c", "abcbc"), ("*b*", "abc"), ("a*b*c", "abbc")]
    {
        assert!(fits(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in
        [("", "a"), ("a", "ab"), ("a*", "b"), ("ab*ba", "aba"), ("*a", "ab"), ("a*bb*a", "aba")]
    {
        assert!(!fits(pattern, text), "{pattern} {text}");
    }
}

proptest! {
    #[test]
    fn a_price_is_what_is_listed_and_its_markup_rounded_up(
        nano in 0..1_000_000_000u128, finer in 0..10_000_000_000u128, percent in 0..=1_000u64,
    ) {
        // Dollars for one, with nineteen decimals.
        let written = format!("0.{nano:09}{finer:010}");
        let policy = ListingPolicy { markup_percent: percent, ..policy() };
        let listing = list_by(&policy, &[entry("m", pricing(json!({"prompt": written})))]);
        let charged = listing.models[0].price.input.billionths;
        let exact = (nano * 10_000_000_000 + finer) * (100 + u128::from(percent));
        // Both in 10^-21 dollars for one.
        let charged = charged * 1_000_000;
        prop_assert!(charged >= exact && charged - exact < 2_000_000);
    }

    #[test]
    fn any_bytes_are_a_list_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(read(&bytes, &upstream(), &policy()));
    }
}
