//! Several upstreams for one model: the next one serves when one cannot, once, and at its own
//! price; nobody is asked in vain, and no mistake is repeated at somebody else's.

mod pair;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nutgate_sandbox::upstream::{Ended, Produced};
use nutgate_sandbox::{Upstream, UpstreamOptions};
use reqwest::Method;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Key, LOOK_AGAIN, PRICE, Pay, Way, World, chat, json, length, prompt_tokens, streamed,
    with, within,
};
use crate::telemetry::{reaches, value};

use pair::{DEAR, Pair, Terms, ceiling};

/// Who is waiting for the first upstream when it dies cannot be served any more, since it may
/// have worked for them; everybody else is served by the second.
#[tokio::test]
async fn an_upstream_that_dies_under_load_is_an_error_for_nobody_but_those_it_was_answering() {
    let gated = || UpstreamOptions { gated: true, ..UpstreamOptions::default() };
    let terms = Terms { failures: 3, first: gated(), second: gated(), ..Terms::default() };
    let mut pair = Pair::with(terms).await;
    pair.second.open_gate();
    let key = pair.world.key(10_000).await;
    let world = Arc::new(pair.world);
    let mut asked = JoinSet::new();
    for nth in 0..WAITING {
        asked.spawn(load(world.clone(), key.clone(), format!("waiting-{nth}"), 1, "pair-slow"));
    }
    within("they wait", pair.first.await_request(WAITING)).await;
    for worker in 0..WORKERS {
        asked.spawn(load(world.clone(), key.clone(), format!("load-{worker}"), EACH, "pair"));
    }
    within("the load is on", pair.first.await_request(WAITING + WORKERS * 3)).await;
    pair.first.stop().await;
    let answers: BTreeMap<String, Answer> = asked.join_all().await.into_iter().flatten().collect();
    for nth in 0..WAITING {
        assert_eq!(answers[&format!("waiting-{nth}-0")].status, 502, "it was with the first");
    }
    let by_second = check_receipts(&world, &key, &pair.first, &answers).await;
    assert!(by_second > WORKERS, "{by_second}");
    world.check_balanced().await;

    // Its breaker is open by now, so nobody even tries to connect.
    let unreachable = "nutgate_upstream_failures_total{kind=\"unreachable\",upstream=\"first\"}";
    assert_eq!(value(&world, "nutgate_upstream_state{upstream=\"first\"}").await, Some(2));
    let before = value(&world, unreachable).await;
    for _ in 0..20 {
        world.chat(&key, &chat("pair")).await.expect(200);
    }
    assert_eq!(value(&world, unreachable).await, before);
}

/// So many requests one after the other, documents and streams, and the answers by their ids. A
/// stream that breaks is no answer.
async fn load(
    world: Arc<World>,
    key: Key,
    name: String,
    count: u64,
    model: &str,
) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for nth in 0..count {
        let id = format!("{name}-{nth}");
        let body = if nth % 2 == 0 { chat(model) } else { streamed(model) };
        let request = world.request(Method::POST, "/v1/chat/completions", Pay::from(&key));
        let request = request.header("x-request-id", &id).body(body.to_string());
        if let Ok(answer) = Answer::read(request.send().await.unwrap()).await {
            answers.push((id, answer));
        }
    }
    answers
}

/// Each request has one receipt: at the price of who served it, or of nothing where the first died
/// with it, read or still unread. Answers how many the second has served.
async fn check_receipts(
    world: &World,
    key: &Key,
    first: &Upstream,
    answers: &BTreeMap<String, Answer>,
) -> u64 {
    let died = |produced: &Produced| produced.ended != Ended::Complete;
    let broken: BTreeSet<String> =
        first.produced().into_iter().filter(died).map(|produced| produced.request_id).collect();
    let balance = world.settled(key).await;
    let receipts = world.receipts(key).await;
    assert_eq!(receipts.len() as u64, WAITING + WORKERS * EACH, "each has one receipt");
    let (mut spent, mut by_second, mut unread) = (0, 0, 0);
    for receipt in &receipts {
        let id = receipt["request_id"].as_str().unwrap();
        let cost = receipt["cost_msats"].as_u64().unwrap();
        spent += cost;
        match answers.get(id) {
            Some(answer) if answer.status == 200 => {
                let price = if receipt["usage"]["upstream"] == "first" { PRICE } else { DEAR };
                assert_eq!(cost, price.cost(7, 20), "once, at the price of who served: {receipt}");
                by_second += u64::from(price.request == DEAR.request);
            }
            Some(answer) => {
                answer.clone().expect_error(502, "upstream_error", "upstream_broke");
                assert_eq!(cost, 0, "{receipt}");
                unread += u64::from(!broken.contains(id));
            }
            None => assert!(broken.contains(id), "a stream that was flowing: {receipt}"),
        }
    }
    assert_eq!(balance.spent, spent);
    assert!(unread <= WORKERS, "each had one under way at most: {unread}");
    by_second
}

const WAITING: u64 = 6;
const WORKERS: u64 = 8;
const EACH: u64 = 16;

#[tokio::test]
async fn an_upstream_that_comes_back_is_used_again_after_its_cooldown() {
    let terms = Terms { failures: 1, cooldown: "100ms", ..Terms::default() };
    let mut pair = Pair::with(terms).await;
    let key = pair.world.key(10_000).await;
    pair.check_served(&key, &chat("pair"), "first", PRICE).await;
    pair.first.stop().await;
    pair.check_served(&key, &chat("pair"), "second", DEAR).await;
    pair.first.start_again().await.unwrap();
    let back = async {
        while pair.first.count() < 2 {
            pair.world.chat(&key, &chat("pair")).await.expect(200);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the first is tried again", back).await;
    reaches(&pair.world, "nutgate_upstream_state{upstream=\"first\"}", 0).await;
    pair.check_served(&key, &chat("pair"), "first", PRICE).await;
    pair.world.check_balanced().await;
}

#[tokio::test]
async fn more_is_reserved_before_a_dearer_upstream_is_asked() {
    let gated = UpstreamOptions { gated: true, ..UpstreamOptions::default() };
    let pair = Pair::with(Terms { second: gated, ..Terms::default() }).await;
    let key = pair.world.key(1000).await;
    for body in [chat("pair-slow"), streamed("pair-slow")] {
        pair.second.close_gate();
        pair.first.fail_next(1, 503);
        let asked = pair.second.count() + 1;
        let later = pair.world.chat_later(&key, &body);
        within("the second is asked", pair.second.await_request(asked)).await;
        assert_eq!(pair.world.info(&key).await.reserved, ceiling(DEAR, &body));
        pair.second.open_gate();
        later.answer().await.expect(200);
        pair.world.settled(&key).await;
        let receipt = pair.world.receipts(&key).await[0].clone();
        assert_eq!(receipt["usage"]["upstream"], "second");
        assert_eq!(receipt["cost_msats"], DEAR.cost(7, 20));
    }
    pair.world.check_balanced().await;
}

#[tokio::test]
async fn slices_are_reserved_at_the_price_of_who_serves() {
    let gated = UpstreamOptions { gated: true, ..UpstreamOptions::default() };
    let config = json!({"reservation": {"slice_output_tokens": 4}});
    let pair = Pair::with(Terms { second: gated, config, ..Terms::default() }).await;
    let key = pair.world.key(1000).await;
    let body = streamed("pair-slow");
    pair.first.fail_next(1, 503);
    let later = pair.world.chat_later(&key, &body);
    let two_slices = DEAR.ceiling(length(body.to_string()), 8, 1);
    let reserved = async {
        while pair.world.info(&key).await.reserved != two_slices {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the second slice", reserved).await;
    pair.second.open_gate();
    assert!(later.answer().await.expect(200).events().is_done());
    assert_eq!(pair.world.settled(&key).await.spent, DEAR.cost(7, 20));

    let body = streamed("turned");
    pair.second.fail_next(1, 503);
    pair.check_served(&key, &body, "first", PRICE).await;
    let row = pair.world.gateway.reservations().pop().unwrap();
    assert!(row.amount >= DEAR.ceiling(length(body.to_string()), 4, 1), "as for the dear one");
    pair.world.check_balanced().await;
}

#[tokio::test]
async fn a_balance_that_does_not_cover_the_dearer_upstream_is_told_what_does() {
    let pair = Pair::start().await;
    let body = chat("pair");
    for balance in [ceiling(PRICE, &body), ceiling(DEAR, &body) - 1] {
        let key = pair.world.key_of_msat(balance).await;
        pair.first.fail_next(1, 503);
        let refused = pair.world.chat(&key, &body).await;
        let refused = refused.expect_error(402, "insufficient_balance", "payment_required");
        let details = refused.json()["error"]["details"].clone();
        assert_eq!(details, json!({"required": ceiling(DEAR, &body), "available": balance}));
        let left = pair.world.settled(&key).await;
        assert_eq!((left.available, left.spent), (balance, 0));
    }
    let key = pair.world.key_of_msat(ceiling(DEAR, &body)).await;
    pair.first.fail_next(1, 503);
    pair.world.chat(&key, &body).await.expect(200);
    assert_eq!(pair.second.count(), 1, "the refused ones never got there");
    pair.world.check_balanced().await;
}

#[tokio::test]
async fn a_cheaper_upstream_that_serves_is_paid_its_own_price() {
    let pair = Pair::start().await;
    let key = pair.world.key(1000).await;
    for body in [chat("turned"), streamed("turned")] {
        pair.second.fail_next(1, 503);
        pair.check_served(&key, &body, "first", PRICE).await;
        let row = pair.world.gateway.reservations().pop().unwrap();
        assert_eq!(row.amount, ceiling(DEAR, &body), "the dear one was to be asked");
    }
    // All that is reserved, where that is charged, is what the one that served may cost.
    let body = chat("turned-ceiling");
    pair.second.fail_next(1, 503);
    let receipt = pair.receipt(&key, &body).await;
    assert_eq!(receipt["usage_source"], "ceiling");
    assert_eq!(receipt["cost_msats"], ceiling(PRICE, &body));
    pair.world.check_balanced().await;
}

#[tokio::test]
async fn what_failed_before_it_began_is_tried_elsewhere_and_nothing_else_is() {
    let pair = Pair::start().await;
    let key = pair.world.key(1000).await;
    for status in [502, 503, 504, 529] {
        pair.first.fail_next(1, status);
        pair.check_served(&key, &chat("pair"), "second", DEAR).await;
    }
    let asked = pair.second.count();
    for (status, told, kind) in
        [(500, 502, "upstream_error"), (400, 400, ""), (404, 404, ""), (422, 422, "")]
    {
        let before = pair.world.settled(&key).await;
        pair.first.fail_next(1, status);
        let answer = pair.world.chat(&key, &chat("pair")).await.expect(told);
        if !kind.is_empty() {
            answer.expect_error(told, kind, "upstream_failed");
        }
        assert_eq!(pair.world.settled(&key).await.spent, before.spent, "{status}");
    }
    assert_eq!(pair.second.count(), asked, "it was asked for none of them");
    pair.world.check_balanced().await;
}

#[tokio::test]
async fn an_upstream_that_limits_is_asked_last_until_it_said_to_come_back() {
    let pair = Pair::start().await;
    let key = pair.world.key(1000).await;
    pair.first.fail_next(1, 429);
    pair.check_served(&key, &chat("pair"), "second", DEAR).await;
    assert_eq!(pair.first.count(), 1);
    for _ in 0..3 {
        pair.check_served(&key, &chat("pair"), "second", DEAR).await;
    }
    assert_eq!(pair.first.count(), 1, "it asked for seven seconds");
    pair.second.fail_next(1, 503);
    pair.check_served(&key, &chat("pair"), "first", PRICE).await;
    pair.world.check_balanced().await;
}

#[tokio::test]
async fn a_limit_is_passed_on_when_nobody_else_served() {
    for (first, second) in [(429, 429), (429, 503), (503, 429)] {
        let pair = Pair::start().await;
        for way in Way::BOTH {
            pair.first.fail_next(1, first);
            pair.second.fail_next(1, second);
            let (answer, cost) = pair.world.buy(way, &chat("pair")).await;
            let answer = answer.expect_error(429, "rate_limit_exceeded", "upstream_rate_limited");
            assert_eq!((answer.header("retry-after"), cost), (Some("7"), 0));
        }
    }
}

#[tokio::test]
async fn refused_credentials_reach_the_operator_and_never_the_client() {
    let pair = Pair::start().await;
    pair.first.fail_all(Some(401));
    for way in Way::BOTH {
        let (answer, cost) = pair.world.buy(way, &chat("pair")).await;
        answer.expect_error(502, "upstream_error", "upstream_refused");
        assert_eq!(cost, 0);
    }
    assert_eq!(pair.second.count(), 0);
    let refused = "nutgate_upstream_refused_total{status=\"401\",upstream=\"first\"}";
    assert_eq!(value(&pair.world, refused).await, Some(2));
    let log = pair.world.gateway.log();
    let told = |line: &&str| line.contains("ERROR") && line.contains("upstream first: refuses");
    assert_eq!(log.lines().filter(told).count(), 1, "once");
}

#[tokio::test]
async fn a_parameter_that_an_upstream_does_not_know_is_taken_out_where_configured() {
    let rejects =
        || UpstreamOptions { rejects_param: Some("seed".to_owned()), ..UpstreamOptions::default() };
    let first_config = json!({"strip_unsupported": ["seed", "logprobs"]});
    let terms = Terms { first: rejects(), first_config, ..Terms::default() };
    let pair = Pair::with(terms).await;
    let key = pair.world.key(1000).await;
    for body in [chat("pair"), streamed("pair")] {
        let asked = pair.first.count();
        let seeded = with(body, json!({"seed": 7, "temperature": 0.5}));
        pair.check_served(&key, &seeded, "first", PRICE).await;
        let seen = pair.first.requests();
        let [.., before, after] = &seen[..] else { panic!("asked twice") };
        assert_eq!(pair.first.count(), asked + 2);
        let mut without = before.json();
        assert_eq!(without["seed"], 7);
        without.as_object_mut().unwrap().remove("seed");
        assert_eq!(after.json(), without);
    }
    assert_eq!(pair.second.count(), 0);

    let terms = Terms { first: rejects(), ..Terms::default() };
    let pair = Pair::with(terms).await;
    let body = with(chat("pair"), json!({"seed": 7}));
    let (answer, cost) = pair.world.buy(Way::Key, &body).await;
    let told = answer.expect(400).json();
    assert_eq!(told["error"]["code"], "unsupported_parameter");
    assert_eq!((pair.first.count(), pair.second.count(), cost), (1, 0, 0));
}

#[tokio::test]
async fn requests_are_shared_out_as_the_model_says() {
    let pair = Pair::start().await;
    let key = pair.world.key(100_000).await;
    for _ in 0..10 {
        pair.check_served(&key, &chat("by-price"), "first", PRICE).await;
    }
    let (first, second) = (pair.first.count(), pair.second.count());
    assert_eq!((first, second), (10, 0), "the cheapest");

    // Both have been quick. For this model the first is slow, which shows once it is asked.
    for _ in 0..30 {
        pair.check_served(&key, &chat("turned"), "second", DEAR).await;
    }
    for _ in 0..40 {
        pair.world.chat(&key, &chat("by-latency")).await.expect(200);
    }
    let slow = pair.first.count() - first;
    assert!(slow <= 12, "{slow} of 40: now and then, to measure it again");

    let (first, second) = (pair.first.count(), pair.second.count());
    for _ in 0..200 {
        pair.world.chat(&key, &chat("by-weight")).await.expect(200);
    }
    let shares = (pair.first.count() - first, pair.second.count() - second);
    assert_eq!(shares.0 + shares.1, 200);
    // 150 are to be expected; six standard deviations are 37.
    assert!((113..=187).contains(&shares.0), "{shares:?}");
    pair.world.check_balanced().await;
}

#[tokio::test]
async fn when_every_upstream_rests_the_client_is_told_when_to_come_back() {
    let terms = Terms { failures: 1, cooldown: "500ms", ..Terms::default() };
    let mut pair = Pair::with(terms).await;
    let key = pair.world.key(1000).await;
    pair.first.stop().await;
    pair.second.stop().await;
    let refused = async {
        loop {
            let answer = pair.world.chat(&key, &chat("pair")).await;
            match answer.status {
                503 => return answer,
                _ => answer.expect_error(502, "upstream_error", "upstream_unreachable"),
            };
        }
    };
    let refused = within("both rest", refused).await;
    let refused = refused.expect_error(503, "upstream_error", "upstream_unavailable");
    assert!((1..=60).contains(&refused.number("retry-after")), "{:?}", refused.headers);
    assert_eq!(pair.world.settled(&key).await.spent, 0);
    pair.first.start_again().await.unwrap();
    pair.second.start_again().await.unwrap();
    let served = async {
        while pair.world.chat(&key, &chat("pair")).await.status != 200 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("they recover", served).await;
    let spent = pair.world.settled(&key).await.spent;
    assert!([PRICE, DEAR].iter().any(|price| spent == price.cost(prompt_tokens(&chat("x")), 20)));
    pair.world.check_balanced().await;
}
