//! Every route that is sold, as a document and as a stream: charged by its own units to the msat,
//! reserved by its own ceiling, and delivered as the upstream wrote it.

use crate::support::{
    Answer, Ask, Events, Given, Kind, Pay, Rates, Setting, Sold, Value, Way, World, given_streamed,
    given_whole, json, priced, tariff, with,
};

/// Models at the tests' tariff, by what the upstream does with them.
fn sells(endings: &[&str]) -> Setting {
    let model = |ending: &&str| priced(&format!("kinds{ending}"), tariff());
    Setting { more_models: endings.iter().map(model).collect(), ..Setting::default() }
}

/// Whose models wait at a gate.
fn gated() -> Setting {
    Setting { upstream: Setting::gated().upstream, ..sells(&["-slow"]) }
}

/// Chats, responses and messages about two pictures, one of them in low detail where that can be
/// said.
fn with_pictures(ask: Ask) -> Ask {
    const PICTURE: &str = "data:image/png;base64,iVBORw0KGgo=";
    let parts = match ask.kind.sold {
        Sold::Chat => json!([
            {"type": "text", "text": "What is a nut?"},
            {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": PICTURE}},
        ]),
        Sold::Responses => json!([
            {"type": "input_text", "text": "What is a nut?"},
            {"type": "input_image", "image_url": PICTURE, "detail": "low"},
            {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
        ]),
        _ => {
            let source =
                json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
            json!([
                {"type": "text", "text": "What is a nut?"},
                {"type": "image", "source": source}, {"type": "image", "source": source},
            ])
        }
    };
    let name = if ask.kind.sold == Sold::Responses { "input" } else { "messages" };
    ask.with(json!({ name: [{"role": "user", "content": parts}] }))
}

fn searching(ask: Ask) -> Ask {
    let tool = match ask.kind.sold {
        Sold::Responses => json!({"type": "web_search"}),
        _ => json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 3}),
    };
    ask.with(json!({ "tools": [tool] }))
}

/// The usual request of a kind, and all that differs from it in what is counted.
fn variants(kind: Kind) -> Vec<Ask> {
    let ask = |ending: &str| kind.ask(&format!("kinds{ending}"));
    let mut asks = vec![ask("")];
    let sold = kind.sold;
    if sold.writes_text() {
        asks.extend([ask("-cached"), ask("-reasoning")]);
    }
    match sold {
        Sold::Chat => {
            asks.extend([with_pictures(ask("")), ask("").with(json!({"n": 3, "max_tokens": 5}))]);
            asks.push(ask("").with(json!({"web_search_options": {}})));
        }
        Sold::Responses | Sold::Messages => {
            asks.extend([with_pictures(ask("")), searching(ask("-web-search"))]);
        }
        Sold::Completions => asks.push(ask("").with(json!({"best_of": 3, "max_tokens": 7}))),
        Sold::Images | Sold::ImageEdits => {
            for (size, quality) in [
                (json!("1024x1024"), json!("high")),
                (json!("1024x1024"), json!("low")),
                (json!("1536x1024"), json!("medium")),
                (json!("512x512"), json!("hd")),
                (json!("auto"), json!("auto")),
            ] {
                let kind = json!({"size": size, "quality": quality});
                asks.extend([ask("").with(kind.clone()), ask("-image-usage").with(kind)]);
            }
        }
        Sold::Rerank => asks.push(ask("-by-tokens")),
        sold if sold.listens() => {
            asks.push(ask("-by-tokens"));
            let formats: &[&str] = match kind.streamed {
                true => &[],
                false => &["verbose_json", "text", "srt", "vtt"],
            };
            asks.extend(formats.iter().map(|name| ask("").with(json!({"response_format": name}))));
        }
        _ => {}
    }
    asks
}

const ENDINGS: [&str; 6] =
    ["", "-cached", "-reasoning", "-web-search", "-by-tokens", "-image-usage"];

/// What this answer costs, as the scripted upstream documents what it uses; or as an estimate is
/// documented, where it does not say.
fn owed(ask: &Ask, given: Given) -> u64 {
    let used = match ask.is_told() {
        true => ask.used(),
        false => ask.estimated(given),
    };
    Rates::of_sats(&tariff()).cost(&used)
}

/// What of a whole answer was delivered.
fn given(ask: &Ask, answer: &Answer) -> Given {
    match ask.kind.streamed {
        true => given_streamed(ask.kind.sold, &answer.events().json()),
        false => given_whole(ask.kind.sold, answer),
    }
}

#[track_caller]
fn check_charged(ask: &Ask, way: Way, answer: Answer, cost: u64) {
    let answer = answer.expect(200);
    let ending = answer.header("content-type").unwrap_or_default().contains("event-stream");
    assert_eq!(ending, ask.kind.streamed, "{ask:?}");
    assert_eq!(cost, owed(ask, given(ask, &answer)), "{way:?} {:?} {}", ask.kind, ask.fields);
    if let Some(told) = answer.header("x-routstr-cost-msats") {
        assert_eq!(told, cost.to_string());
    }
    if ask.is_told() && answer.text().contains("\"usage\"") {
        assert!(answer.text().contains(&format!("\"total_msats\":{cost},")), "{}", answer.text());
    }
}

#[tokio::test]
async fn text_is_charged_by_every_unit_of_its_route_however_it_is_paid() {
    let world = World::with(sells(&ENDINGS)).await;
    for kind in Kind::all().filter(|kind| kind.sold.writes_text()) {
        for ask in variants(kind) {
            for way in Way::BOTH {
                let (answer, cost) = world.buy_ask(way, &ask).await;
                check_charged(&ask, way, answer, cost);
            }
        }
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn images_and_audio_are_charged_by_every_unit_of_their_routes_however_they_are_paid() {
    let world = World::with(sells(&ENDINGS)).await;
    for kind in Kind::all().filter(|kind| !kind.sold.writes_text()) {
        for ask in variants(kind) {
            for way in Way::BOTH {
                let (answer, cost) = world.buy_ask(way, &ask).await;
                check_charged(&ask, way, answer, cost);
            }
        }
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn what_an_upstream_says_that_it_costs_is_charged_with_its_margin() {
    let price = {
        let mut price = tariff();
        price["upstream_cost"] = json!(1.3);
        price
    };
    let endings = ["-usd-cost", "-by-tokens-usd-cost", "-image-usage-usd-cost"];
    let models = endings.map(|ending| priced(&format!("kinds{ending}"), price.clone()));
    let config = json!({"btc_usd": 100_000});
    let world = World::with(Setting { config, more_models: models.into(), ..Setting::default() });
    let world = world.await;
    // A dollar is a thousand sats.
    let rates = Rates { upstream_cost: 1_300_000_000_000_000, ..Rates::of_sats(&price) };
    for kind in Kind::all() {
        let ending = match kind.sold {
            sold if sold.makes_images() => "-image-usage-usd-cost",
            _ => "-usd-cost",
        };
        let ask = kind.ask(&format!("kinds{ending}"));
        if !ask.is_told() {
            continue;
        }
        let mut used = ask.used();
        // A millionth for each token, second or search unit that is counted.
        let counted = match kind.sold {
            sold if sold.listens() => used.audio_ms / 1000,
            Sold::Rerank => used.search_units,
            _ => used.input + used.output,
        };
        used.cost_nano_usd = Some(1000 * counted);
        let owed = rates.cost(&used);
        assert_eq!(owed, 11_000 + (1_300 * counted).div_ceil(1000), "{kind:?}");
        for way in Way::BOTH {
            let (answer, cost) = world.buy_ask(way, &ask).await;
            answer.expect(200);
            assert_eq!(cost, owed, "{kind:?} {way:?}");
        }
    }
}

/// Where an upstream says nothing of what it did, a model's policy says what is charged.
#[tokio::test]
async fn missing_usage_is_charged_by_the_policy_of_the_model_on_every_route() {
    let policies = ["floor", "ceiling"];
    let model = |policy: &str| {
        let id = format!("{policy}-no-usage");
        with(priced(&id, tariff()), json!({ "missing_usage": policy }))
    };
    let more_models = policies.map(model).into();
    let world = World::with(Setting { more_models, ..Setting::default() }).await;
    let rates = Rates::of_sats(&tariff());
    for kind in Kind::all() {
        for policy in policies {
            let ask = kind.ask(&format!("{policy}-no-usage"));
            let (answer, cost) = world.buy_ask(Way::Key, &ask).await;
            let used = match policy {
                "floor" => ask.floored(given(&ask, &answer.expect(200))),
                _ => ask.most(),
            };
            assert_eq!(cost, rates.cost(&used), "{policy} {kind:?}");
        }
    }
    world.check_balanced().await;
}

/// Where only what the request itself says has a price, no usage is missed: characters to speak,
/// images that came, documents to rank, and the fee.
#[tokio::test]
async fn what_is_counted_here_is_charged_without_any_usage() {
    let price = json!({
        "currency": "sat", "input": 0, "output": 0, "request": 11, "characters": 15_013,
        "input_image": 3, "search_unit": 17, "images": [{"price": 41}],
    });
    let model = with(
        priced("counted-no-usage", price.clone()),
        json!({"routes": [
            "images", "image_edits", "speech", "moderations", "rerank", "embeddings", "chat",
        ]}),
    );
    let world = World::with(Setting { more_models: vec![model], ..Setting::default() }).await;
    let rates = Rates::of_sats(&price);
    let sold = [
        Sold::Images,
        Sold::ImageEdits,
        Sold::Speech,
        Sold::Moderations,
        Sold::Rerank,
        Sold::Embeddings,
        Sold::Chat,
    ];
    for kind in Kind::all().filter(|kind| sold.contains(&kind.sold)) {
        let ask = kind.ask("counted-no-usage");
        for way in Way::BOTH {
            let (answer, cost) = world.buy_ask(way, &ask).await;
            answer.expect(200);
            let owed = rates.cost(&ask.estimated(Given { events: 1, text_bytes: 0 }));
            assert_eq!(cost, owed, "{way:?} {kind:?}");
        }
    }
}

#[tokio::test]
async fn the_most_that_a_request_may_cost_is_reserved_while_it_is_served() {
    let world = World::with(gated()).await;
    let rates = Rates::of_sats(&tariff());
    let slow = |ask: Ask| ask.with(json!({"model": "kinds-slow"}));
    for kind in Kind::all() {
        for ask in variants(kind).into_iter().map(slow) {
            for way in Way::BOTH {
                let purse = world.purse(way).await;
                let reserved = world.reserved_for(&purse, &ask).await;
                assert_eq!(reserved, rates.ceiling(&ask.most()), "{way:?} {kind:?} {}", ask.fields);
                let cost = world.cost(&purse, None).await;
                assert!(cost <= reserved, "{cost} of {reserved}: {kind:?} {}", ask.fields);
            }
        }
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn every_path_is_sold_without_its_version_too() {
    let world = World::with(sells(&[""])).await;
    for sold in Sold::ALL {
        let key = world.key(1000).await;
        let ask = sold.whole().ask("kinds");
        let request = world.asking(sold.path(), Pay::from(&key), &ask);
        let answer = Answer::read(request.send().await.unwrap()).await.unwrap().expect(200);
        assert_eq!(world.upstream.requests().pop().unwrap().path, ask.path());
        assert_eq!(world.settled(&key).await.spent, owed(&ask, given(&ask, &answer)), "{sold:?}");
    }
}

/// Anthropic's clients have their key there. It is worth the same on every route, and no upstream
/// sees it.
#[tokio::test]
async fn a_key_in_x_api_key_pays() {
    let world = World::with(sells(&[""])).await;
    for sold in Sold::ALL {
        let ecash = world.sats(1000).await;
        let key = world.key_of(&ecash).await;
        let ask = sold.whole().ask("kinds");
        let request = world.asking(&ask.path(), Pay::Nothing, &ask).header("x-api-key", &key.0);
        let answer = Answer::read(request.send().await.unwrap()).await.unwrap().expect(200);
        assert_eq!(world.settled(&key).await.spent, owed(&ask, given(&ask, &answer)), "{sold:?}");
        let seen = world.upstream.requests().pop().unwrap();
        assert!(!format!("{:?}", seen.headers).contains(&key.0));
        assert_eq!(seen.header("x-api-key"), None);
    }
}

#[tokio::test]
async fn an_answer_is_what_the_upstream_wrote_but_for_what_it_cost() {
    let world = World::with(sells(&ENDINGS)).await;
    for kind in Kind::all() {
        for ask in variants(kind) {
            let theirs = world.ask_upstream_for(&ask).await.expect(200);
            for way in Way::BOTH {
                let purse = world.purse(way).await;
                let ours = world.ask(purse.pay(), &ask).await.expect(200);
                assert_eq!(ours.header("content-type"), theirs.header("content-type"));
                let ours = without_costs(&ours.body);
                assert!(ours == theirs.body, "{way:?} {kind:?} {}", String::from_utf8_lossy(&ours));
            }
            let seen = world.upstream.requests().pop().unwrap();
            assert_eq!(seen.body, ask.body(), "and nothing is changed in what is asked");
            assert_eq!(seen.header("content-type"), Some(ask.content_type()));
        }
    }
}

/// The same bytes without the members that the gateway adds, which stand together.
fn without_costs(body: &[u8]) -> Vec<u8> {
    let Ok(text) = str::from_utf8(body) else { return body.to_vec() };
    let mut parts = text.split(",\"cost\":{\"total_msats\":");
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once("\"remaining_balance_msats\":").expect("a balance");
        left += rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    }
    left.into_bytes()
}

/// What is audio or plain text is passed on byte for byte, and in the pieces in which it came.
#[tokio::test]
async fn speech_and_transcripts_are_passed_on_byte_for_byte() {
    let world = World::with(sells(&["", "-big"])).await;
    let speech = Sold::Speech.whole();
    let mut asks: Vec<Ask> = ["mp3", "opus", "aac", "flac", "wav", "pcm"]
        .map(|format| speech.ask("kinds").with(json!({"response_format": format})))
        .into();
    asks.push(speech.ask("kinds-big"));
    for sold in [Sold::Transcriptions, Sold::Translations] {
        let formats = ["text", "srt", "vtt"].map(|format| json!({"response_format": format}));
        asks.extend(formats.map(|format| sold.whole().ask("kinds").with(format)));
    }
    for ask in asks {
        let theirs = world.ask_upstream_for(&ask).await.expect(200);
        for way in Way::BOTH {
            let (ours, cost) = world.buy_ask(way, &ask).await;
            assert!(ours.body == theirs.body, "{way:?} {}", ask.fields);
            assert_eq!(ours.header("content-type"), theirs.header("content-type"));
            assert_eq!(cost, owed(&ask, given_whole(ask.kind.sold, &theirs)), "{}", ask.fields);
        }
    }
}

/// Whatever an upstream does wrong on whatever route: what was delivered is charged, nothing
/// else, and nothing is lost.
#[tokio::test]
async fn an_upstream_s_misbehaviour_is_charged_by_what_was_delivered() {
    const WRONG: [&str; 4] = ["-no-usage", "-byte-by-byte", "-drops-mid-stream", "-error-event"];
    let world = World::with(sells(&WRONG)).await;
    for kind in Kind::all() {
        for wrong in WRONG {
            let mut ask = kind.ask(&format!("kinds{wrong}"));
            if kind.sold == Sold::Speech {
                // Some pieces of audio.
                ask = ask.with(json!({"input": "What is a nut? ".repeat(20)}));
            }
            for way in Way::BOTH {
                let purse = world.purse(way).await;
                let (status, body) = as_far_as_it_comes(&world, purse.pay(), &ask).await;
                let cost = world.cost(&purse, None).await;
                let owed = owed_for_wrong(&ask, way, status, &body);
                assert_eq!(cost, owed, "{way:?} {kind:?} {wrong} {status}");
            }
        }
    }
    world.check_balanced().await;
}

/// The status and as much of the body as there is, whole or not.
async fn as_far_as_it_comes(world: &World, pay: Pay<'_>, ask: &Ask) -> (u16, Vec<u8>) {
    let mut answer = world.asking(&ask.path(), pay, ask).send().await.unwrap();
    let (status, mut body) = (answer.status().as_u16(), Vec::new());
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
    }
    (status, body)
}

fn owed_for_wrong(ask: &Ask, way: Way, status: u16, body: &[u8]) -> u64 {
    let sold = ask.kind.sold;
    let events = Events::read(&String::from_utf8_lossy(body)).json();
    let streamed = given_streamed(sold, &events);
    let headers = reqwest::header::HeaderMap::new();
    let whole = given_whole(sold, &Answer { status, headers, body: body.to_vec() });
    let given = if ask.kind.streamed { streamed } else { whole };
    let flows = ask.kind.streamed || sold == Sold::Speech;
    match ask.model().trim_start_matches("kinds") {
        // Held answers are delivered whole or not at all.
        "-drops-mid-stream" if way == Way::XCashu || !flows => {
            assert_eq!(status, 502, "{ask:?}");
            0
        }
        "-drops-mid-stream" | "-error-event" => {
            assert_eq!(status, 200, "{ask:?}");
            Rates::of_sats(&tariff()).cost_of_part(ask, given, &events)
        }
        _ => {
            assert_eq!(status, 200, "{ask:?}");
            owed(ask, given)
        }
    }
}

impl Rates {
    /// The estimate of an answer that ended early; messages begin with what they read.
    fn cost_of_part(&self, ask: &Ask, given: Given, events: &[Value]) -> u64 {
        let mut used = ask.estimated(given);
        let begun = events.iter().any(|event| event["type"] == "message_start");
        if given == Given::default() {
            return 0;
        }
        if begun {
            used.input = ask.used().input;
        }
        self.cost(&used)
    }
}
