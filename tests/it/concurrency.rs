//! Many at once: a token is credited once, a balance is never spent twice, and nobody waits for
//! somebody else's mint.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use nutgate_sandbox::MintOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{
    Answer, LOOK_AGAIN, Misbehaviour, PRICE, Pay, Setting, Value, World, chat, json, model_of,
    prompt_tokens, with, within,
};

#[tokio::test]
async fn a_token_that_200_use_at_once_for_the_first_time_is_credited_once() {
    // A mint with fees: what is credited is what the mint left.
    let mint = MintOptions { input_fee_ppk: 100, ..MintOptions::default() };
    let world = Arc::new(World::with(Setting { mint, ..Setting::default() }).await);
    let paid = world.sats(1500).await;
    let asked = together(MANY, |_| {
        let (world, paid) = (world.clone(), paid.clone());
        async move { world.chat(Pay::Bearer(&paid), &request("demo")).await }
    })
    .await;
    let served = asked.iter().filter(|answer| answer.status == 200).count();
    for refused in asked.into_iter().filter(|answer| answer.status != 200) {
        refused.expect_error(402, "insufficient_balance", "payment_required");
    }
    let balance = world.settled(Pay::Bearer(&paid)).await;
    // Seven proofs are swapped for a tenth of a sat each, which is rounded up.
    assert_eq!(world.deposits(), [1_499_000]);
    assert_eq!(world.mint.swap_count(), 1);
    assert_eq!(balance.spent, cost() * as_u64(served));
    assert_eq!(balance.available + balance.spent, 1_499_000);
    assert!(served > 0 && served < MANY, "some have to be refused for this to say anything");
    world.check_balanced().await;
}

#[tokio::test]
async fn a_token_with_which_200_pay_at_once_comes_back_once() {
    let world = Arc::new(World::start().await);
    let paid = world.sats(1500).await;
    let asked = together(MANY, |_| {
        let (world, paid) = (world.clone(), paid.clone());
        async move { world.chat(Pay::XCashu(&paid), &request("demo")).await }
    })
    .await;
    let served = asked.iter().filter(|answer| answer.status == 200).count();
    for refused in asked.iter().filter(|answer| answer.status != 200) {
        assert_honest(refused);
    }
    let mut change: HashSet<String> =
        asked.iter().filter_map(|answer| answer.change().map(str::to_owned)).collect();
    assert!(!change.contains(&paid), "what was redeemed is not echoed");
    change.insert(ecash_in(&world.claim(&paid).await.expect(200)));
    let balance = world.info(Pay::Bearer(&paid)).await;
    assert_eq!(world.deposits(), [1_500_000]);
    assert_eq!(balance.spent, cost() * as_u64(served));
    let worth = worth(&world, &change).await;
    assert_eq!(worth + balance.spent + balance.available, 1_500_000);
    assert!(balance.available < 1000 && balance.reserved == 0, "{balance:?}");
    world.check_balanced().await;
}

#[tokio::test]
async fn a_token_that_200_turn_into_a_key_at_once_is_one_key() {
    let world = Arc::new(World::start().await);
    let paid = world.sats(77).await;
    let created = together(MANY, |_| {
        let (world, paid) = (world.clone(), paid.clone());
        let asked = json!({"initial_balance_token": paid});
        async move { world.post("/v1/balance/create", Pay::Nothing, &asked).await }
    })
    .await;
    let keys: HashSet<String> = created
        .into_iter()
        .map(|answer| answer.expect(200).json())
        .inspect(|created| assert_eq!(created["balance"], 77_000))
        .map(|created| created["api_key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(world.deposits(), [77_000]);
    assert_eq!(world.mint.swap_count(), 1);
    world.check_balanced().await;
}

#[tokio::test]
async fn of_50_at_once_a_balance_that_covers_10_serves_10() {
    let world = Arc::new(World::with(Setting::gated()).await);
    let body = request(&model_of(Misbehaviour::Slow));
    let ceiling = ceiling(&body);
    let sats = (ceiling * 10).div_ceil(1000);
    assert!(sats * 1000 < ceiling * 11, "ten and no more");
    let key = world.key(sats).await;

    let watched = Watch::start(&world, &key.0, sats * 1000);
    let mut asked = JoinSet::new();
    for _ in 0..50 {
        let (world, key, body) = (world.clone(), key.clone(), body.clone());
        asked.spawn(async move { world.chat(&key, &body).await });
    }
    // Whoever is not refused waits at the gate, so that all fifty meet.
    for _ in 0..40 {
        let refused = within("a refusal", asked.join_next()).await.unwrap().unwrap();
        let refused = refused.expect_error(402, "insufficient_balance", "payment_required");
        assert_eq!(refused.json()["error"]["details"]["required"], ceiling);
    }
    within("ten are forwarded", world.upstream.await_request(10)).await;
    assert_eq!(world.info(&key).await.reserved, ceiling * 10);
    world.upstream.open_gate();
    for answer in asked.join_all().await {
        answer.expect(200);
    }
    let balance = world.settled(&key).await;
    assert_eq!(balance.spent, cost() * 10);
    assert_eq!(world.upstream.count(), 10);
    watched.stop().await;
    world.check_balanced().await;
}

#[tokio::test]
async fn a_refund_that_races_requests_pays_what_they_leave() {
    let world = Arc::new(World::start().await);
    let key = world.key(300).await;
    let watched = Watch::start(&world, &key.0, 300_000);
    let answers = together(60, |nth| {
        let (world, key) = (world.clone(), key.clone());
        async move {
            match nth % 3 {
                0 => world.refund(&key).await,
                _ => world.chat(&key, &request("demo")).await,
            }
        }
    })
    .await;
    let mut refunds = HashSet::new();
    let mut served = 0;
    for (nth, answer) in answers.into_iter().enumerate() {
        match (nth % 3, answer.status) {
            (0, 200) => drop(refunds.insert(ecash_in(&answer))),
            (0, _) => drop(answer.expect_error(400, "invalid_request", "requests_in_progress")),
            (_, 200) => served += 1,
            _ => drop(answer.expect_error(402, "insufficient_balance", "payment_required")),
        }
    }
    world.settled(&key).await;
    watched.stop().await;
    refunds.insert(ecash_in(&world.refund(&key).await.expect(200)));
    let balance = world.info(&key).await;
    assert_eq!(balance.spent, cost() * served);
    assert_eq!(worth(&world, &refunds).await + balance.spent + balance.available, 300_000);
    world.check_balanced().await;
}

#[tokio::test]
async fn refunds_of_one_account_at_once_are_one_refund() {
    let world = Arc::new(World::start().await);
    let key = world.key(123).await;
    let answers = together(50, |_| {
        let (world, key) = (world.clone(), key.clone());
        async move { world.refund(&key).await.expect(200) }
    })
    .await;
    let refunds: HashSet<String> = answers.iter().map(ecash_in).collect();
    assert_eq!(refunds.len(), 1);
    assert_eq!(worth(&world, &refunds).await, 123_000);
    assert_eq!(world.info(&key).await.available, 0);
    world.check_balanced().await;
}

#[tokio::test]
async fn topups_that_race_refunds_add_up() {
    let world = Arc::new(World::start().await);
    let key = world.key(8).await;
    let mut tokens = Vec::new();
    for sats in 1..=20 {
        tokens.push(world.sats(sats).await);
    }
    let answers = together(40, |nth| {
        let (world, key) = (world.clone(), key.clone());
        // Each token is used by its own topup, and half of them race a second one.
        let asked = json!({"cashu_token": tokens[nth / 2]});
        async move {
            match nth % 2 {
                0 => world.post("/v1/balance/topup", Pay::from(&key), &asked).await,
                _ => world.refund(&key).await,
            }
        }
    })
    .await;
    let mut refunds = HashSet::new();
    for (nth, answer) in answers.into_iter().enumerate() {
        let answer = answer.expect(200);
        match nth % 2 {
            0 => assert_eq!(answer.json()["msats"], as_u64(nth / 2 + 1) * 1000),
            _ => drop(refunds.insert(ecash_in(&answer))),
        }
    }
    refunds.insert(ecash_in(&world.refund(&key).await.expect(200)));
    assert_eq!(world.info(&key).await.available, 0);
    assert_eq!(worth(&world, &refunds).await, (8 + 210) * 1000);
    world.check_balanced().await;
}

#[tokio::test]
async fn nobody_waits_for_a_mint_that_holds_somebody_elses_swap() {
    let world = Arc::new(World::start().await);
    let key = world.key(100).await;
    let swaps = world.mint.swap_count();
    let mut tokens = Vec::new();
    for _ in 0..20 {
        tokens.push(world.sats(64).await);
    }
    world.mint.hold_swaps(true);
    let mut asked = JoinSet::new();
    for paid in tokens {
        let world = world.clone();
        asked.spawn(async move {
            let answer = world.chat(Pay::XCashu(&paid), &request("demo")).await.expect(200);
            world.worth(answer.change().unwrap()).await
        });
    }
    // Each swap is at the mint although none has been answered.
    within("every token is swapped", world.mint.await_swaps(swaps + 20)).await;
    world.chat(&key, &request("demo")).await.expect(200);
    let refund = world.refund(&key).await.expect(200);
    assert_eq!(refund.json()["sats"], "88", "composed while the mint holds everything");
    world.mint.hold_swaps(false);
    for worth in asked.join_all().await {
        assert_eq!(worth, (64_000 - cost()) / 1000);
    }
    world.check_balanced().await;
}

/// Looks at one account over and over, and insists that it always adds up to what it was given
/// or, once something was paid back, to less.
struct Watch {
    stop: watch::Sender<bool>,
    looks: JoinSet<u64>,
}

impl Watch {
    fn start(world: &Arc<World>, key: &str, deposited: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (world, key) = (world.clone(), key.to_owned());
        let mut looks = JoinSet::new();
        looks.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                // An amount below zero would not even be read as one.
                let balance = world.info(Pay::Bearer(&key)).await;
                let sum = balance.available + balance.reserved + balance.spent;
                assert!(sum <= deposited, "{balance:?}");
                count += 1;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            count
        });
        Self { stop, looks }
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        let count = within("the last look", self.looks.join_next()).await.unwrap().unwrap();
        assert!(count > 0);
    }
}

/// Asks all of them at once, each on a task of its own; the answers are in the order of asking.
async fn together<F>(count: usize, ask: impl Fn(usize) -> F) -> Vec<Answer>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for nth in 0..count {
        let asking = ask(nth);
        asked.spawn(async move { (nth, asking.await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(nth, _)| *nth);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// What a refund gives: in its body always, in its head where it fits.
#[track_caller]
fn ecash_in(refund: &Answer) -> String {
    let ecash = refund.json()["token"].as_str().unwrap().to_owned();
    assert!(refund.change().is_none_or(|change| change == ecash));
    ecash
}

/// Refused for want of balance, or because everything had been paid back by then.
#[track_caller]
fn assert_honest(refused: &Answer) {
    let body = refused.json();
    let said = (refused.status, body["error"]["code"].as_str().unwrap());
    let honest = [(402, "payment_required"), (400, "cashu_token_already_spent")];
    assert!(honest.contains(&said), "{body}");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
}

fn request(model: &str) -> Value {
    with(chat(model), json!({"max_tokens": OUTPUT_TOKENS}))
}

fn cost() -> u64 {
    PRICE.cost(prompt_tokens(&chat("demo")), OUTPUT_TOKENS)
}

fn ceiling(body: &Value) -> u64 {
    PRICE.ceiling(as_u64(body.to_string().len()), OUTPUT_TOKENS, 1)
}

/// What these tokens are worth together, in msat.
async fn worth(world: &World, tokens: &HashSet<String>) -> u64 {
    let mut total = 0;
    for ecash in tokens {
        total += world.worth(ecash).await * 1000;
    }
    total
}

fn as_u64(count: usize) -> u64 {
    count.try_into().unwrap()
}

const MANY: usize = 200;
const OUTPUT_TOKENS: u64 = 5;
