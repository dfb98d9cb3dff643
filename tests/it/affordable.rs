//! A request whose length nobody named is made as short as its balance affords, says so, and
//! never costs more than there is.

use crate::support::{
    Answer, Ask, CurrencyUnit, Key, Kind, MODEL_OUTPUT_TOKENS, Pay, Rates, Setting, Sold,
    TokenFormat, Value, Way, World, json, priced, tariff, with,
};

/// A mint of msat, models that write as much as they may, and so much at least.
fn setting(least: u64) -> Setting {
    let other = json!({"output_limit_field": "max_completion_tokens"});
    let more_models =
        vec![priced("kinds-long", tariff()), with(priced("other-long", tariff()), other)];
    let config = json!({"reservation": {"affordable_output_min": least}});
    Setting { config, more_models, ..Setting::msat() }
}

const LEAST: u64 = 16;

/// What is reserved when each answer may be so long.
fn ceiling(ask: &Ask, limit: u64) -> u64 {
    let mut most = ask.most();
    most.output = most.output / MODEL_OUTPUT_TOKENS * limit;
    Rates::of_sats(&tariff()).ceiling(&most)
}

/// The longest that each answer may be for this balance, if it may be as long as the least.
fn affords(ask: &Ask, balance: u64) -> Option<u64> {
    (LEAST..=MODEL_OUTPUT_TOKENS).rev().find(|limit| ceiling(ask, *limit) <= balance)
}

/// What a limit is called that the client did not write.
fn field(ask: &Ask) -> &'static str {
    match ask.kind.sold {
        Sold::Responses => "max_output_tokens",
        Sold::Chat if ask.model().starts_with("other") => "max_completion_tokens",
        _ => "max_tokens",
    }
}

/// Ecash of exactly this many msat, and the way in which it is spent.
struct Exact {
    way: Way,
    ecash: String,
    key: Key,
}

impl Exact {
    async fn new(world: &World, way: Way, msat: u64) -> Self {
        let ecash = world.faucet.cashu(msat, CurrencyUnit::Msat, TokenFormat::B).await.unwrap();
        let key = match way {
            Way::Key => world.key_of(&ecash).await,
            Way::Bearer | Way::XCashu => Key::of(&ecash),
        };
        Self { way, ecash, key }
    }

    fn pay(&self) -> Pay<'_> {
        match self.way {
            Way::Key => Pay::from(&self.key),
            Way::Bearer => Pay::Bearer(&self.ecash),
            Way::XCashu => Pay::XCashu(&self.ecash),
        }
    }

    /// What was spent; the rest of `msat` is on the account or in the change.
    async fn spent(&self, world: &World, answer: &Answer, msat: u64) -> u64 {
        let left = world.settled(&self.key).await;
        let change = match answer.change() {
            Some(change) => world.worth(change).await,
            None => 0,
        };
        assert_eq!(left.spent + left.available + change, msat, "{:?} {left:?}", self.way);
        left.spent
    }
}

fn asks() -> Vec<Ask> {
    let routes = [Sold::Chat, Sold::Completions, Sold::Responses];
    let kinds = Kind::all().filter(|kind| routes.contains(&kind.sold));
    let mut asks: Vec<Ask> = kinds.map(|kind| kind.ask("kinds-long")).collect();
    let chat = Sold::Chat.whole();
    asks.push(chat.ask("other-long"));
    asks.push(chat.ask("kinds-long").with(json!({"n": 3})));
    asks.push(chat.ask("kinds-long").with(json!({"max_tokens": null, "temperature": 0.5})));
    asks
}

/// The body that was forwarded is the client's with this limit, and nothing else.
#[track_caller]
fn check_forwarded(world: &World, ask: &Ask, limit: Option<u64>) {
    let seen = world.upstream.requests().pop().unwrap().json();
    let expected = match limit {
        Some(limit) => with(ask.fields.clone(), json!({ field(ask): limit })),
        None => ask.fields.clone(),
    };
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_longest_answer_that_the_balance_pays_for_is_asked_for_and_announced() {
    let world = World::with(setting(LEAST)).await;
    for ask in asks() {
        for way in Way::ALL {
            for limit in [LEAST, 101] {
                let step = ceiling(&ask, limit + 1) - ceiling(&ask, limit);
                for more in [0, step - 1] {
                    let balance = ceiling(&ask, limit) + more;
                    assert_eq!(affords(&ask, balance), Some(limit), "and no more");
                    check_lowered(&world, &ask, way, balance, limit).await;
                }
            }
        }
    }
    world.check_balanced().await;
}

async fn check_lowered(world: &World, ask: &Ask, way: Way, balance: u64, limit: u64) {
    let purse = Exact::new(world, way, balance).await;
    let answer = world.ask(purse.pay(), ask).await.expect(200);
    let told = answer.header("x-nutgate-max-output-tokens");
    assert_eq!(told, Some(limit.to_string().as_str()), "{way:?} {}", ask.fields);
    check_forwarded(world, ask, Some(limit));
    let served = ask.clone().with(json!({ field(ask): limit }));
    let owed = Rates::of_sats(&tariff()).cost(&served.used());
    assert_eq!(purse.spent(world, &answer, balance).await, owed, "{way:?} {}", ask.fields);
    assert!(owed <= balance);
}

#[tokio::test]
async fn whoever_affords_the_whole_answer_gets_it_unchanged() {
    let world = World::with(setting(LEAST)).await;
    for ask in asks() {
        for way in Way::ALL {
            let balance = ceiling(&ask, MODEL_OUTPUT_TOKENS);
            let purse = Exact::new(&world, way, balance).await;
            let answer = world.ask(purse.pay(), &ask).await.expect(200);
            assert_eq!(answer.header("x-nutgate-max-output-tokens"), None);
            check_forwarded(&world, &ask, None);
            purse.spent(&world, &answer, balance).await;
        }
    }
}

/// Refused as a whole, with what the whole would have taken, and nothing was taken.
async fn check_refused(world: &World, ask: &Ask, balance: u64) {
    let asked = world.upstream.count();
    for way in Way::ALL {
        let purse = Exact::new(world, way, balance).await;
        let answer = world.ask(purse.pay(), ask).await;
        let answer = answer.expect_error(402, "insufficient_balance", "payment_required");
        let required = Rates::of_sats(&tariff()).ceiling(&ask.most());
        let details = json!({"required": required, "available": balance});
        assert_eq!(answer.json()["error"]["details"], details, "{way:?} {}", ask.fields);
        match way {
            Way::Key => assert_eq!(purse.spent(world, &answer, balance).await, 0),
            Way::Bearer => assert!(!world.is_spent(&purse.ecash).await),
            Way::XCashu => {
                assert_eq!(answer.change(), Some(purse.ecash.as_str()), "untouched");
                assert!(!world.is_spent(&purse.ecash).await);
            }
        }
    }
    assert_eq!(world.upstream.count(), asked, "nothing was forwarded");
}

#[tokio::test]
async fn less_than_the_least_answer_is_refused() {
    let world = World::with(setting(LEAST)).await;
    for ask in asks() {
        let balance = ceiling(&ask, LEAST) - 1;
        assert_eq!(affords(&ask, balance), None);
        check_refused(&world, &ask, balance).await;
    }
}

#[tokio::test]
async fn a_length_that_was_asked_for_is_never_made_shorter() {
    let world = World::with(setting(LEAST)).await;
    let named = |ask: &Ask, name: &str| ask.clone().with(json!({ name: MODEL_OUTPUT_TOKENS }));
    let spellings = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
    let mut all: Vec<Ask> = asks()
        .iter()
        .filter(|ask| !ask.kind.streamed)
        .flat_map(|ask| spellings.map(|name| named(ask, name)))
        .collect();
    all.push(named(&Sold::Messages.whole().ask("kinds-long"), "max_tokens"));
    for ask in all {
        check_refused(&world, &ask, ceiling(&ask, MODEL_OUTPUT_TOKENS) - 1).await;
    }
}

#[tokio::test]
async fn where_it_is_turned_off_nothing_is_made_shorter() {
    let world = World::with(setting(0)).await;
    for ask in asks() {
        check_refused(&world, &ask, ceiling(&ask, MODEL_OUTPUT_TOKENS) - 1).await;
    }
}

/// What an answer paid by `X-Cashu` left below a sat is to be claimed, and no request's money.
#[tokio::test]
async fn a_spent_token_buys_no_shorter_answer() {
    let price = json!({"currency": "sat", "input": 1000, "output": 1000});
    let cheap = with(priced("cheap", price), json!({"max_output_tokens": 2000}));
    let config = json!({"reservation": {"affordable_output_min": LEAST}});
    let world =
        World::with(Setting { config, more_models: vec![cheap], ..Setting::default() }).await;
    for kind in Kind::all().filter(|kind| kind.sold == Sold::Chat) {
        let ask = kind.ask("cheap");
        let paid = world.sats(3).await;
        let answer = world.ask(Pay::XCashu(&paid), &ask).await.expect(200);
        assert_eq!(world.worth(answer.change().expect("change")).await, 2);
        let left = world.info(Pay::Bearer(&paid)).await.available;
        assert!(left > ask.text_bytes() + LEAST, "{left} msat would pay for a short answer");
        let again = world.ask(Pay::XCashu(&paid), &ask).await;
        again.expect_error(400, "invalid_request", "cashu_token_already_spent");
        assert_eq!(world.info(Pay::Bearer(&paid)).await.available, left);
    }
    assert_eq!(world.upstream.count(), 2);
}

/// Where money is set aside by the slice, less than one slice is an answer of its own.
#[tokio::test]
async fn a_balance_that_pays_for_no_slice_pays_for_a_shorter_answer() {
    let mut setting = setting(LEAST);
    setting.config["reservation"]["slice_output_tokens"] = json!(100);
    let world = World::with(setting).await;
    for sold in [Sold::Chat, Sold::Completions] {
        let ask = Kind { sold, streamed: true }.ask("kinds-long");
        check_lowered(&world, &ask, Way::Key, ceiling(&ask, 22), 22).await;
        let rows = world.gateway.reservations();
        assert_eq!(rows.last().unwrap().usage_source, "upstream", "it was not cut");
    }
    world.check_balanced().await;
}

/// Many at once for one balance: each gets what is left, and it is never below zero.
#[tokio::test]
async fn requests_that_share_a_balance_are_each_made_as_short_as_they_must_be() {
    let setting = Setting { upstream: Setting::gated().upstream, ..setting(LEAST) };
    let slow = priced("kinds-long-slow", tariff());
    let world = World::with(Setting { more_models: vec![slow], ..setting }).await;
    let ask = Sold::Chat.whole().ask("kinds-long-slow");
    let balance = ceiling(&ask, MODEL_OUTPUT_TOKENS) + ceiling(&ask, 101);
    let key = world.key_of_msat(balance).await;
    let whole = world.ask_later(Pay::from(&key), &ask);
    world.asked(1).await;
    let shorter = world.ask_later(Pay::from(&key), &ask);
    world.asked(2).await;
    let refused = world.ask(&key, &ask).await;
    refused.expect_error(402, "insufficient_balance", "payment_required");
    world.upstream.open_gate();
    let told = |answer: Answer| -> Value {
        answer.header("x-nutgate-max-output-tokens").map_or(Value::Null, Value::from)
    };
    assert_eq!(told(whole.answer().await.expect(200)), Value::Null);
    assert_eq!(told(shorter.answer().await.expect(200)), "101");
    let balance_left = world.settled(&key).await;
    assert_eq!(balance_left.available + balance_left.spent, balance);
    world.check_balanced().await;
}
