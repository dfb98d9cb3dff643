//! Models: what is sold where, and every mistake that a price can have.

use lua_free_filters::Route;

use super::*;

/// Two upstreams and a model, from its fourth line on.
fn model(rest: &str) -> String {
    format!(
        "upstreams: [{{name: up, base_url: 'https://u'}}, {{name: two, base_url: 'https://t'}}]\n\
         models:\n- id: m\n  context_length: 9\n{rest}"
    )
}

const TEXT: &str = "  max_output_tokens: 5\n  upstreams: [up]\n";

fn first(rest: &str) -> Model {
    let parsed = parse(&model(rest));
    parsed.map_err(|all| all.to_string()).unwrap().models.swap_remove(0)
}

#[test]
fn every_route_has_a_name() {
    let named: Vec<Route> = ROUTE_NAMES.iter().map(|(_, route)| *route).collect();
    assert_eq!(named, Route::ALL);
    for (name, route) in ROUTE_NAMES {
        let price = "{currency: sat, input: 1, output: 1, request: 1}";
        let model = first(&format!("{TEXT}  routes: [{name}]\n  price: {price}\n"));
        assert_eq!(model.routes, [route]);
    }
}

#[test]
fn a_model_is_sold_where_every_price_of_it_says_what_is_billed() {
    let routes = |upstreams: &str, price: &str| {
        let upstreams = format!("  max_output_tokens: 5\n  upstreams: {upstreams}\n");
        first(&format!("{upstreams}  price: {{currency: sat, input: 1, output: 1{price}}}\n"))
            .routes
    };
    let text = routes("[up]", "");
    let not_text = [
        Route::ImageGenerations,
        Route::ImageEdits,
        Route::Transcriptions,
        Route::Translations,
        Route::Speech,
    ];
    assert_eq!(text.len() + not_text.len(), Route::ALL.len());
    assert!(not_text.iter().all(|route| !text.contains(route)));
    let all = ", images: [{price: 1}], audio_minute: 0, characters: 0";
    assert_eq!(routes("[up]", all), Route::ALL, "zero is a price");
    let other = "[up, {name: two, price: {currency: sat, input: 1, output: 1}}]";
    assert_eq!(routes(other, all), text, "but the other upstream has none");
}

#[test]
fn output_may_be_left_out_where_nothing_is_charged_for_it() {
    let embeddings = "  upstreams: [up]\n  routes: [embeddings]\n";
    let model = first(&format!("{embeddings}  price: {{currency: sat, input: 1}}\n"));
    assert_eq!((model.max_output_tokens, model.price.output), (0, Decimal::default()));
    let price = "  price: {currency: sat, input: 1, output: 1}\n";
    let at = "models[0].max_output_tokens";
    let required = [format!("3: {at}: is required")];
    assert_eq!(reported(&self::model(&format!("{embeddings}{price}"))), required);
}

#[test]
fn an_upstream_is_a_name_or_what_differs_there() {
    let model = first(
        "  max_output_tokens: 5\n  upstream_model: theirs\n  upstreams:\n  - up\n  - name: two\n    \
         weight: 1_000\n    upstream_model: other\n    \
         price: {currency: sat, input: 3, output: 4}\n  select: weight\n  \
         price: {currency: sat, input: 1, output: 2}\n",
    );
    let [up, two] = model.upstreams.as_slice() else { panic!("two upstreams") };
    assert_eq!((up.upstream.as_str(), up.weight, up.upstream_model.as_str()), ("up", 1, "theirs"));
    assert_eq!(model.price_at(up), &model.price);
    assert_eq!((two.weight, two.upstream_model.as_str()), (1_000, "other"));
    assert_eq!(model.price_at(two).input.billionths, 3_000_000_000);
    assert_eq!(model.select, Select::Weight);
}

#[test]
fn what_may_be_left_out_of_a_model_is_as_for_nobody_s() {
    let model = first(&format!("{TEXT}  price: {{currency: sat, input: 0, output: 0}}\n"));
    let rest = Model {
        id: String::new(),
        name: String::new(),
        upstream_model: String::new(),
        context_length: 0,
        max_output_tokens: 0,
        routes: Vec::new(),
        upstreams: Vec::new(),
        ..model
    };
    assert_eq!(rest, Model::default());
}

#[test]
fn bounds_are_taken_and_what_is_beyond_them_is_not() {
    let with = |extra: &str| {
        let price = "  price: {currency: sat, input: 0, output: 0}\n";
        parse(&model(&format!("{TEXT}{extra}{price}"))).is_ok()
    };
    for (most, beyond) in [
        ("  web_searches_max: 1_000\n", "  web_searches_max: 1_001\n"),
        ("  web_searches_max: 0\n", "  web_searches_max: -1\n"),
        (
            "  image_tokens: {low: 0, high: 1_000_000_000}\n",
            "  image_tokens: {low: 0, high: 1_000_000_001}\n",
        ),
    ] {
        assert!(with(most) && !with(beyond), "{most}");
    }
}

#[test]
fn every_mistake_in_a_model_is_reported_with_its_line_and_key() {
    let wrong: Vec<_> = MISTAKES
        .iter()
        .map(|(rest, expected)| (rest, reported(&model(rest)), expected.to_vec()))
        .filter(|(_, reported, expected)| reported != expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const MISTAKES: &[(&str, &[&str])] = &[
    (
        "  max_output_tokens: 5\n  upstreams:\n  - name: up\n    weight: 0\n  - name: twoo\n  \
         - {weight: 1001, name: two}\n  - 7\n  - {name: up, wieght: 1}\n  - weight: 1\n  \
         price: {currency: sat, input: 1, output: 1}\n",
        &[
            "8: models[0].upstreams[0].weight: must be from 1 to 1000",
            "9: models[0].upstreams[1].name: there is no upstream `twoo` (did you mean `two`?)",
            "10: models[0].upstreams[2].weight: must be from 1 to 1000",
            "11: models[0].upstreams[3]: expected a name or a mapping, found a number",
            "12: models[0].upstreams[4].wieght: unknown key (did you mean `weight`?)",
            "12: models[0].upstreams[4].name: `up` is already at models[0].upstreams[0].name",
            "13: models[0].upstreams[5].name: is required",
        ],
    ),
    (
        "  max_output_tokens: 5\n  upstreams: [up]\n  routes: [chat, chats, chat]\n  \
         select: cheapest\n  output_limit_field: max\n  image_tokens: {low: 5}\n  abort: stop\n  \
         missing_usage: none\n  price: {currency: sat, input: 1, output: 1}\n",
        &[
            "7: models[0].routes[1]: `chats` is not one of `chat`, `responses`, `embeddings`, \
             `completions`, `images`, `image_edits`, `transcriptions`, `translations`, `speech`, \
             `messages`, `moderations`, `rerank` (did you mean `chat`?)",
            "7: models[0].routes[2]: is named twice",
            "8: models[0].select: `cheapest` is not one of `order`, `weight`, `price`, `latency`",
            "9: models[0].output_limit_field: `max` is not one of `max_tokens`, \
             `max_completion_tokens`",
            "10: models[0].image_tokens.high: is required",
            "11: models[0].abort: `stop` is not one of `cancel`, `drain`",
            "12: models[0].missing_usage: `none` is not one of `estimate`, `floor`, `ceiling`",
        ],
    ),
    (
        "  upstreams: [up]\n  routes: []\n  price: {currency: sat, input: 1}\n",
        &["6: models[0].routes: names no route; leave it out for all that have a price"],
    ),
    (
        "  upstreams: [up]\n  routes: [chat, images, transcriptions, speech]\n  \
         max_output_tokens: 5\n  price: {currency: sat, input: 1}\n",
        &[
            "8: models[0].price.output: is required",
            "8: models[0].price.images: one of `images`, `output`, `request` is required: \
             `images` is billed by it",
            "8: models[0].price.audio_second: one of `audio_second`, `audio_minute`, `output`, \
             `request` is required: `transcriptions` is billed by it",
            "8: models[0].price.characters: one of `characters`, `request` is required: `speech` \
             is billed by it",
        ],
    ),
    (
        "  max_output_tokens: 5\n  upstreams:\n  - name: up\n    price: {currency: sat}\n  \
         price: {currency: sat, output: 1, audio_second: 1, audio_minute: 60}\n",
        &[
            "8: models[0].upstreams[0].price.output: is required",
            "8: models[0].upstreams[0].price.input: is required",
            "9: models[0].price.input: is required",
            "9: models[0].price.audio_minute: prices the same as `audio_second`; give one of them",
        ],
    ),
    (
        "  max_output_tokens: 5\n  upstreams: [up]\n  price:\n    currency: sat\n    input: 1\n    \
         output: 1\n    images:\n    - {price: 1}\n    - {size: auto, quality: '', price: 1}\n    \
         - {size: 1x1}\n    - {size: 1x1, price: -1}\n    -\n    - {sise: 1x1, price: 1}\n",
        &[
            "13: models[0].price.images[1].size: is the upstream's choice; the price for it is \
             the first row's",
            "13: models[0].price.images[1].quality: is required",
            "14: models[0].price.images[2].price: is required",
            "15: models[0].price.images[3].price: must not be negative",
            "15: models[0].price.images[3]: a row above is for the same images",
            "16: models[0].price.images[4]: is empty",
            "17: models[0].price.images[5].sise: unknown key (did you mean `size`?)",
            "17: models[0].price.images[5]: a row above is for the same images",
        ],
    ),
    (
        "  max_output_tokens: 5\n  upstreams: [up]\n  price: {currency: sat, input: 1, output: 1, \
         upstream_cost: 1.1}\n",
        &["7: models[0].price.upstream_cost: a cost in usd needs `btc_usd` or `btc_usd_feed`"],
    ),
    (
        "  max_output_tokens: 5\n  upstreams: [up]\n  price:\n    currency: usd\n    input: 1\n    \
         output: 1\n    cached_input: -1\n    cache_write: -0.1\n    reasoning: 1e1\n    \
         request: 900_000_000\n    input_image: -1\n    web_search: 900000000\n    \
         images: [{price: 900000000}]\n    audio_second: -1\n    audio_minute: -1\n    \
         characters: -1\n    search_unit: 900000000\n    upstream_cost: -1\nbtc_usd: 1000\n",
        &[
            "11: models[0].price.cached_input: must not be negative",
            "12: models[0].price.cache_write: must not be negative",
            "13: models[0].price.reasoning: `1e1` is not a number like 0.15, without an exponent",
            "14: models[0].price.request: `900_000_000` is not a number like 0.15, without an \
             exponent",
            "15: models[0].price.input_image: must not be negative",
            "16: models[0].price.web_search: is more than any request can cost",
            "17: models[0].price.images[0].price: is more than any request can cost",
            "18: models[0].price.audio_second: must not be negative",
            "19: models[0].price.audio_minute: must not be negative",
            "20: models[0].price.characters: must not be negative",
            "21: models[0].price.search_unit: is more than any request can cost",
            "22: models[0].price.upstream_cost: must not be negative",
        ],
    ),
];
