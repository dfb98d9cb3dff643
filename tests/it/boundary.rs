//! Ten thousand requests at the boundary of a limit: four gateways over one Redis, whose clock
//! stands still, so that all of them fall into one window.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use nutgate::clock::{Stopwatch, UnixMs};

use crate::support::{Answer, Fleet, Key, Setting, World, chat, json, model, with};

const GATEWAYS: usize = 4;
const REQUESTS: usize = 10_000;
const LIMIT: u64 = 1_000;
const AT_ONCE: usize = 64;

#[tokio::test]
async fn of_10000_requests_at_four_gateways_exactly_the_limit_is_served_and_nothing_is_left_over() {
    let world = fleet().await;
    let key = world.key(2 * LIMIT).await;
    let reservations = reservations(&world).await;
    let (began, since) = (UnixMs::now().0, Stopwatch::start());
    let answers = ask(&world, &key).await;
    let took = since.elapsed();
    let ended = UnixMs::now().0;
    println!("{REQUESTS} requests at {GATEWAYS} gateways in {} ms", took.as_millis());

    let (served, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len() as u64, refused.len() as u64), (LIMIT, REQUESTS as u64 - LIMIT));
    for answer in served.iter().chain(&refused) {
        check_told(answer, began, ended);
    }
    let mut left: Vec<u64> = served.iter().map(remaining).collect();
    left.sort_unstable();
    assert_eq!(left, (0..LIMIT).collect::<Vec<_>>(), "each number is told once");
    for answer in refused {
        assert_eq!(remaining(&answer), 0);
        assert_eq!(answer.number("retry-after"), 60, "the clock stands still");
        answer.expect_error(429, "rate_limit_exceeded", "rate_limit_exceeded");
    }

    let balance = world.settled(&key).await;
    assert_eq!((balance.reserved, balance.spent), (0, LIMIT * 1_000));
    assert_eq!((balance.requests, world.upstream.count()), (LIMIT, LIMIT));
    let made = self::reservations(&world).await - reservations;
    assert_eq!(made, LIMIT, "a refused request leaves no reservation, open or ended");
    world.check_balanced().await;
}

/// Of which every gateway has the same moment for ever.
async fn fleet() -> Arc<World> {
    let flat = with(
        model("flat", &["sandbox"]),
        json!({"price": {"currency": "sat", "request": 1, "input": 0, "output": 0}}),
    );
    // None may be refused because the machine is busy.
    let config = json!({
        "rate_limits": {"requests_per_minute": LIMIT},
        "fleet": {"ledger_timeout": "20s"},
        "log": "warn",
    });
    let fleet = Some(Fleet::of(GATEWAYS));
    let setting = Setting { fleet, config, more_models: vec![flat], ..Setting::default() };
    let mut world = World::with(setting).await;
    let moment = UnixMs::now().0.to_string();
    for gateway in std::iter::once(&mut world.gateway).chain(&mut world.others) {
        gateway.set_env("NUTGATE_LEDGER_CLOCK_MS", &moment);
        gateway.restart().await;
    }
    Arc::new(world)
}

async fn ask(world: &World, key: &Key) -> Vec<Answer> {
    let body = chat("flat");
    let asked = stream::iter(0..REQUESTS).map(|turn| world.chat_at(turn, key, &body));
    asked.buffer_unordered(AT_ONCE).collect().await
}

/// The limit, and the end of the one window, by the clock of whoever reads it.
#[track_caller]
fn check_told(answer: &Answer, began_ms: u64, ended_ms: u64) {
    assert_eq!(answer.number("x-ratelimit-limit"), LIMIT);
    assert!(remaining(answer) < LIMIT, "never negative, and one of them is gone");
    let reset = answer.number("x-ratelimit-reset") * 1_000;
    assert!((began_ms + 60_000..ended_ms + 61_000).contains(&reset), "{reset} from {began_ms}");
    let state = answer.header("ratelimit").unwrap();
    assert!(state.starts_with(&format!(r#""requests";r={};t=60"#, remaining(answer))), "{state}");
}

fn remaining(answer: &Answer) -> u64 {
    answer.number("x-ratelimit-remaining")
}

/// How many Redis has, open or ended.
async fn reservations(world: &World) -> u64 {
    let count =
        "local n = 0 for _, key in ipairs(redis.call('KEYS', '*:r:*')) do n = n + 1 end return n";
    world.servers().redis.cli(&["EVAL", count, "0"]).await.unwrap().trim().parse().unwrap()
}
