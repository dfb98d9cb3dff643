//! `Idempotency-Key` on billable routes: the same request under the same key is charged once. An
//! answer that was not streamed is given again, byte by byte; what cannot be is said to be so.

use nutgate::once::VALUE_BYTES_MAX;
use reqwest::Method;

use crate::support::{
    Answer, Fleet, LOOK_AGAIN, Misbehaviour, PRICE, Pay, Setting, Value, Way, World, chat, json,
    model_of, streamed, with, within,
};

const CHAT: &str = "/v1/chat/completions";

/// Asks the gateway whose turn it is under an idempotency key.
async fn ask_at(world: &World, turn: usize, key: &str, pay: Pay<'_>, body: &Value) -> Answer {
    let request = world.request_to(world.gateway_of(turn), Method::POST, CHAT, pay);
    let request = request.header("idempotency-key", key).body(body.to_string());
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

async fn ask(world: &World, key: &str, pay: Pay<'_>, body: &Value) -> Answer {
    ask_at(world, 0, key, pay, body).await
}

/// Asks until the request that is under way has ended, as its own gateway's ledger call may be
/// behind another gateway's.
async fn ask_until_ended(
    world: &World,
    turn: usize,
    key: &str,
    pay: Pay<'_>,
    body: &Value,
) -> Answer {
    let asked = async {
        loop {
            let answer = ask_at(world, turn, key, pay, body).await;
            if answer.status != 409 || answer.json()["error"]["code"] != IN_FLIGHT {
                return answer;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("it ends", asked).await
}

#[track_caller]
fn check_repeats(again: &Answer, first: &Answer) {
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!((again.status, again.text()), (first.status, first.text()));
    for name in ["content-type", "x-routstr-cost-msats", "x-routstr-output-cost-msats"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    assert!(again.header("x-ratelimit-remaining").is_some());
    assert_eq!(again.change(), first.change());
}

const INVALID: &str = "invalid_request";
const IN_FLIGHT: &str = "idempotency_in_flight";
const REUSED: &str = "idempotency_key_reuse";
const NOT_REPLAYABLE: &str = "idempotency_not_replayable";

fn cost() -> u64 {
    PRICE.cost(7, 20)
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_and_is_charged_once() {
    let world = World::start().await;
    for (nth, way) in Way::ALL.into_iter().enumerate() {
        let purse = world.purse(way).await;
        let first = ask(&world, "order-1", purse.pay(), &chat("demo")).await.expect(200);
        let again = ask(&world, "order-1", purse.pay(), &chat("demo")).await;
        check_repeats(&again, &first);
        assert_eq!(world.cost(&purse, Some(&again)).await, cost(), "{way:?}");
        assert_eq!(world.upstream.count(), 2 * u64::try_from(nth).unwrap() + 1, "{way:?}");
        // Another account's key of this name is another one.
        let stranger = world.key(20).await;
        let theirs = ask(&world, "order-1", Pay::from(&stranger), &chat("demo")).await.expect(200);
        assert_eq!(theirs.header("idempotency-replayed"), None);
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn a_key_and_the_ecash_that_it_was_made_of_are_one_client() {
    let world = World::start().await;
    let ecash = world.sats(100).await;
    let first = ask(&world, "a", Pay::Bearer(&ecash), &chat("demo")).await.expect(200);
    let key = crate::support::Key::long_of(&ecash);
    let same = with(chat("demo"), json!({}));
    check_repeats(&ask(&world, "a", Pay::from(&key), &same).await, &first);
    let alias = world.request(Method::POST, "/chat/completions", Pay::from(&key));
    let alias = alias.header("idempotency-key", "a").body(same.to_string());
    let again = Answer::read(alias.send().await.unwrap()).await.unwrap();
    check_repeats(&again, &first);
}

#[tokio::test]
async fn on_one_machine_one_of_many_is_forwarded() {
    one_of_many(&World::with(Setting::gated()).await).await;
}

#[tokio::test]
async fn in_a_fleet_one_of_many_is_forwarded() {
    one_of_many(&World::with(Setting { fleet: Some(Fleet::of(2)), ..Setting::gated() }).await)
        .await;
}

/// Also of those that bring the same fresh ecash, and whichever gateway they ask.
async fn one_of_many(world: &World) {
    let body = chat(&model_of(Misbehaviour::Slow));
    for (nth, way) in (1..).zip(Way::ALL) {
        world.upstream.close_gate();
        let purse = world.purse(way).await;
        let asked = (0..8).map(async |turn| {
            let answer = ask_at(world, turn, "one", purse.pay(), &body).await;
            if answer.status != 200 {
                let refused = answer.clone().expect_error(409, INVALID, IN_FLIGHT);
                assert_eq!(refused.header("retry-after"), Some("1"));
                assert_eq!(refused.change(), None);
                let retry = (way == Way::XCashu).then_some("false");
                assert_eq!(refused.header("x-should-retry"), retry);
            }
            answer
        });
        let opened = async {
            world.asked(nth).await;
            let refused = ask_at(world, 1, "one", purse.pay(), &body).await;
            refused.expect_error(409, INVALID, IN_FLIGHT);
            world.upstream.open_gate();
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(asked), opened);
        let served: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
        let again = ask_until_ended(world, 1, "one", purse.pay(), &body).await.expect(200);
        assert!(!served.is_empty());
        assert!(served.iter().all(|answer| answer.text() == again.text()));
        assert_eq!(world.upstream.count(), nth);
        assert_eq!(world.cost(&purse, Some(&again)).await, cost(), "{way:?}");
    }
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_and_nothing_is_charged() {
    let world = World::start().await;
    for way in Way::BOTH {
        let purse = world.purse(way).await;
        ask(&world, "a", purse.pay(), &chat("demo")).await.expect(200);
        let asked = world.upstream.count();
        for other in [streamed("demo"), with(chat("demo"), json!({"max_tokens": 5}))] {
            let refused = ask(&world, "a", purse.pay(), &other).await;
            refused.expect_error(422, INVALID, REUSED);
        }
        let request = world.request(Method::POST, "/v1/completions", purse.pay());
        let body = json!({"model": "demo", "prompt": "x"}).to_string();
        let request = request.header("idempotency-key", "a").body(body);
        let refused = Answer::read(request.send().await.unwrap()).await.unwrap();
        refused.expect_error(422, INVALID, REUSED);
        assert_eq!(world.upstream.count(), asked);
        assert_eq!(world.cost(&purse, None).await, cost());
    }
}

#[tokio::test]
async fn a_stream_is_not_given_again_and_never_charged_twice() {
    let world = World::start().await;
    for (nth, way) in (1..).zip(Way::ALL) {
        let purse = world.purse(way).await;
        let first = ask(&world, "a", purse.pay(), &streamed("demo")).await.expect(200);
        assert!(first.events().is_done());
        let again = ask(&world, "a", purse.pay(), &streamed("demo")).await;
        let again = again.expect_error(409, INVALID, NOT_REPLAYABLE);
        assert_eq!(again.header("x-should-retry"), Some("false"));
        assert_eq!(world.upstream.count(), nth);
        assert_eq!(world.cost(&purse, Some(&again)).await, cost(), "{way:?}");
    }
}

#[tokio::test]
async fn what_failed_and_was_free_is_made_again_whatever_is_asked_then() {
    let world = World::start().await;
    for way in Way::BOTH {
        let purse = world.purse(way).await;
        world.upstream.fail_next(1, 500);
        ask(&world, "a", purse.pay(), &chat("demo")).await.expect(502);
        if way == Way::XCashu {
            continue;
        }
        let served = ask(&world, "a", purse.pay(), &streamed("demo")).await.expect(200);
        assert_eq!(served.header("idempotency-replayed"), None);
        assert_eq!(world.cost(&purse, Some(&served)).await, cost());
    }
}

#[tokio::test]
async fn a_client_that_leaves_finds_its_answer_when_it_comes_again() {
    let world = World::with(Setting::gated()).await;
    let body = chat(&model_of(Misbehaviour::Slow));
    for (nth, way) in (1..).zip(Way::ALL) {
        world.upstream.close_gate();
        let purse = world.purse(way).await;
        let mut raw = world.raw().await;
        let lines = format!("{}idempotency-key: a\r\n", purse.pay().line());
        raw.post(CHAT, &lines, &body.to_string()).await;
        world.asked(nth).await;
        raw.reset();
        world.upstream.open_gate();
        let answer = ask_until_ended(&world, 0, "a", purse.pay(), &body).await.expect(200);
        assert_eq!(answer.header("idempotency-replayed"), Some("true"));
        assert_eq!(answer.json()["usage"]["completion_tokens"], 20);
        assert_eq!(world.upstream.count(), nth);
        assert_eq!(world.upstream.client_gone(), 0, "it was heard to its end");
        assert_eq!(world.cost(&purse, Some(&answer)).await, cost(), "{way:?}");
    }
}

#[tokio::test]
async fn an_empty_account_and_one_at_its_limits_get_their_answer_again() {
    let limits = json!({"rate_limits": {"requests_per_minute": 1}});
    let world = World::with(Setting::config(limits)).await;
    let key = world.key(100).await;
    let first = ask(&world, "a", Pay::from(&key), &chat("demo")).await.expect(200);
    world.settled(&key).await;
    world.refund(&key).await.expect(200);
    assert!(world.info(&key).await.available < 1000);
    let again = ask(&world, "a", Pay::from(&key), &chat("demo")).await;
    check_repeats(&again, &first);
    assert_eq!(again.header("x-ratelimit-remaining"), Some("0"));
    let another = ask(&world, "b", Pay::from(&key), &chat("demo")).await;
    another.expect_error(429, "rate_limit_exceeded", "rate_limit_exceeded");
}

#[tokio::test]
async fn an_answer_is_kept_up_to_its_bound_and_sold_beyond_it() {
    let world = World::start().await;
    let usual = ask(&world, "a", Pay::from(&world.key(100).await), &chat("demo")).await.expect(200);
    for (less, kept) in [(0, true), (1, false)] {
        let bound = json!({"idempotency": {"answer_bytes_max": usual.body.len() - less}});
        let world = World::with(Setting::config(bound)).await;
        let key = world.key(100).await;
        let first = ask(&world, "a", Pay::from(&key), &chat("demo")).await.expect(200);
        assert_eq!(first.body.len(), usual.body.len());
        let again = ask(&world, "a", Pay::from(&key), &chat("demo")).await;
        match kept {
            true => check_repeats(&again, &first),
            false => drop(again.expect_error(409, INVALID, NOT_REPLAYABLE)),
        }
        assert_eq!(world.settled(&key).await.spent, cost());
    }
}

#[tokio::test]
async fn an_account_has_so_much_kept_and_is_served_beyond_it() {
    let bound = json!({"idempotency": {"answer_bytes_max": 65_536, "account_bytes_max": 65_536}});
    let world = World::with(Setting::config(bound)).await;
    let key = world.key(5_000).await;
    let mut kept = 0;
    let refused = loop {
        let name = kept.to_string();
        ask(&world, &name, Pay::from(&key), &chat("demo")).await.expect(200);
        let again = ask(&world, &name, Pay::from(&key), &chat("demo")).await;
        if again.status != 200 {
            break again;
        }
        kept += 1;
        assert!(kept < 129, "each counts 512 bytes at least");
    };
    refused.expect_error(409, INVALID, NOT_REPLAYABLE);
    assert!(kept > 10);
    assert_eq!(world.settled(&key).await.spent, (kept + 1) * cost());
    // A call takes less room than an answer, so a few more of them fit.
    let asked = json!({"cashu_token": world.sats(3).await});
    let mut calls = 0;
    let refused = loop {
        let request = world.request(Method::POST, "/v1/balance/topup", Pay::from(&key));
        let request = request.header("idempotency-key", format!("call-{calls}"));
        let request = request.body(asked.to_string());
        let answer = Answer::read(request.send().await.unwrap()).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
        calls += 1;
        assert!(calls < 5, "each counts 512 bytes at least");
    };
    let code = "rate_limit_exceeded";
    assert!(refused.expect_error(429, code, code).number("retry-after") > 3_600);
    // Others have room.
    let other = world.key(100).await;
    let first = ask(&world, "0", Pay::from(&other), &chat("demo")).await.expect(200);
    check_repeats(&ask(&world, "0", Pay::from(&other), &chat("demo")).await, &first);
}

#[tokio::test]
async fn a_key_has_its_bounds_on_every_route() {
    let world = World::start().await;
    let account = world.key(100).await;
    let longest = "x".repeat(VALUE_BYTES_MAX);
    ask(&world, &longest, Pay::from(&account), &chat("demo")).await.expect(200);
    for odd in [String::new(), longest + "x", "a b".to_owned()] {
        let refused = ask(&world, &odd, Pay::from(&account), &chat("demo")).await;
        let refused = refused.expect_error(400, INVALID, "invalid_value");
        assert_eq!(refused.json()["error"]["details"]["param"], "Idempotency-Key");
        let request = world.request(Method::POST, "/v1/balance/refund", Pay::from(&account));
        let request = request.header("idempotency-key", &odd).body("{}");
        let refused = Answer::read(request.send().await.unwrap()).await.unwrap();
        refused.expect_error(400, INVALID, "invalid_value");
    }
    let ecash = world.sats(20).await;
    let refused = ask(&world, "a b", Pay::XCashu(&ecash), &chat("demo")).await;
    assert_eq!(refused.expect(400).change(), Some(ecash.as_str()), "untouched");
    assert_eq!(world.upstream.count(), 1);
    assert_eq!(world.upstream.requests()[0].header("idempotency-key"), None, "it is ours");
}

#[tokio::test]
async fn nothing_at_rest_tells_what_was_asked_or_answered() {
    let world = World::start().await;
    let key = world.key(100).await;
    let name = "a-name-that-only-the-client-knows";
    let first = ask(&world, name, Pay::from(&key), &chat("demo")).await.expect(200);
    check_repeats(&ask(&world, name, Pay::from(&key), &chat("demo")).await, &first);
    let said = first.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let mut files = 0;
    for entry in std::fs::read_dir(world.gateway.data_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [name, &key.0[3..], &said] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is at rest");
        }
        files += 1;
    }
    assert!(files > 1);
    let log = world.gateway.log();
    assert!(!log.contains(name) && !log.contains(&said));
}
