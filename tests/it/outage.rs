//! A mint that is away, slow, or silent: ecash is untouched, or its value comes back, once.

use crate::support::{
    Answer, Misbehaviour, PRICE, Pay, Setting, Value, World, chat, json, model_of, prompt_tokens,
    streamed, within,
};

#[tokio::test]
async fn a_mint_that_is_down_takes_nothing() {
    let mut world = World::start().await;
    let paid = world.sats(100).await;
    world.mint.stop().await;

    let refused = world.chat(Pay::XCashu(&paid), &chat("demo")).await;
    let refused = expect_unreachable(refused);
    assert_eq!(refused.change(), Some(&*paid), "the untouched token is given back");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let refused = world.chat(Pay::Bearer(&paid), &streamed("demo")).await;
    assert_eq!(expect_unreachable(refused).change(), None);
    let asked = json!({"initial_balance_token": paid});
    expect_unreachable(world.post("/v1/balance/create", Pay::Nothing, &asked).await);
    let claim = world.refund(Pay::XCashu(&paid)).await;
    claim.expect_error(404, "not_found", "refund_not_found");
    assert_eq!(world.upstream.count(), 0);

    world.mint.start_again().await.unwrap();
    assert!(!world.is_spent(&paid).await);
    let answer = world.chat(Pay::XCashu(&paid), &chat("demo")).await.expect(200);
    let change = answer.change().unwrap();
    assert_eq!(world.worth(change).await, (100_000 - cost()) / 1000);
    world.check_balanced().await;
}

#[tokio::test]
async fn a_gateway_starts_without_its_mint_and_serves_who_needs_none() {
    let mut world = World::start().await;
    let key = world.key(100).await;
    let paid = world.sats(50).await;
    world.gateway.kill().await;
    world.mint.stop().await;
    world.gateway.restart().await;

    world.chat(&key, &chat("demo")).await.expect(200);
    let refund = world.refund(&key).await.expect(200);
    // It has never seen this mint's keysets, and says the same as if it had.
    let refused = expect_unreachable(world.chat(Pay::XCashu(&paid), &chat("demo")).await);
    assert_eq!(refused.change(), Some(&*paid));

    world.mint.start_again().await.unwrap();
    assert_eq!(world.worth(refund.change().unwrap()).await, (100_000 - cost()) / 1000);
    world.chat(Pay::XCashu(&paid), &chat("demo")).await.expect(200);
    world.check_balanced().await;
}

#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_found_out_at_once() {
    let world = World::start().await;
    let paid = world.sats(100).await;
    world.mint.lose_swap_answers(true);
    // The mint still says what it has signed when it is asked for that.
    let answer = world.chat(Pay::XCashu(&paid), &chat("demo")).await.expect(200);
    assert_eq!(world.mint.swap_count(), 1);
    world.mint.lose_swap_answers(false);
    assert_eq!(world.worth(answer.change().unwrap()).await, (100_000 - cost()) / 1000);
    world.check_balanced().await;
}

#[tokio::test]
async fn a_mint_that_dies_between_a_swap_and_its_answer_costs_nobody_anything() {
    let mut world = World::start().await;
    let paid = world.sats(100).await;
    leave_undecided(&mut world, &paid).await;
    // Neither echoed nor denied: nobody knows yet.
    let claim = world.refund(Pay::XCashu(&paid)).await;
    assert_pending(&claim);
    let again = world.chat(Pay::XCashu(&paid), &chat("demo")).await;
    assert!((500..=503).contains(&again.status), "{}", again.text());
    assert_eq!(again.change(), None);

    world.mint.start_again().await.unwrap();
    let answer = world.chat(Pay::XCashu(&paid), &chat("demo")).await.expect(200);
    let change = answer.change().unwrap();
    assert_eq!(world.worth(change).await, (100_000 - cost()) / 1000);
    assert_eq!(world.deposits(), [100_000], "credited once");
    assert_eq!(world.claim(&paid).await.expect(200).change(), Some(change));
    world.check_balanced().await;
}

#[tokio::test]
async fn what_was_undecided_at_a_crash_is_decided_when_the_mint_is_back() {
    let mut world = World::start().await;
    let key = world.key(100).await;
    let paid = world.sats(100).await;
    leave_undecided(&mut world, &paid).await;
    world.gateway.kill().await;
    // The mint is still away, and the gateway starts all the same.
    world.gateway.restart().await;
    world.chat(&key, &chat("demo")).await.expect(200);
    assert_pending(&world.refund(Pay::XCashu(&paid)).await);

    world.mint.start_again().await.unwrap();
    let claim = world.claim(&paid).await.expect(200);
    assert_eq!(world.worth(claim.change().unwrap()).await, 100, "it paid for nothing");
    assert_eq!(world.claim(&paid).await.expect(200).change(), claim.change());
    world.check_balanced().await;
}

#[tokio::test]
async fn a_slow_mint_is_waited_for_so_long_and_not_longer() {
    let setting = Setting::config(json!({"mint_timeout": "250ms"}));
    let world = World::with(setting).await;
    let paid = world.sats(100).await;
    world.mint.hold_swaps(true);
    let refused = world.chat(Pay::XCashu(&paid), &chat("demo")).await;
    let refused = refused.expect_error(500, "internal_error", "cashu_token_consumed");
    assert_eq!(refused.change(), None, "it may be spent");
    assert_pending(&world.refund(Pay::XCashu(&paid)).await);

    world.mint.hold_swaps(false);
    let claim = world.claim(&paid).await.expect(200);
    assert_eq!(world.worth(claim.change().unwrap()).await, 100);
    assert_eq!(world.mint.swap_count(), 2, "the gateway's one, and the fresh wallet's");
    world.check_balanced().await;
}

/// Whoever claims while a token is being redeemed is told to wait until there is something to
/// give, and at no moment that nothing was taken.
#[tokio::test]
async fn a_claim_is_pending_from_the_swap_to_the_change() {
    let world = World::start().await;
    for _ in 0..10 {
        let paid = world.sats(100).await;
        let swaps = world.mint.swap_count();
        world.mint.hold_swaps(true);
        let asked = world.chat_later(Pay::XCashu(&paid), &chat("demo"));
        within("the mint has made the swap", world.mint.await_swaps(swaps + 1)).await;
        // Each of them asks over and over until it is told something else.
        let claims = async {
            tokio::join!(
                world.claim(&paid),
                world.claim(&paid),
                world.claim(&paid),
                world.claim(&paid)
            )
        };
        let release = async { world.mint.hold_swaps(false) };
        let ((first, second, third, fourth), ()) = tokio::join!(claims, release);
        let claimed: Vec<Answer> = [first, second, third, fourth].into();
        let answer = asked.answer().await;
        // A claim that came before the request's reservation took what there was, all of it.
        let charged = if answer.status == 200 { cost() } else { 0 };
        for claim in &claimed {
            let claim = claim.clone().expect(200);
            assert_eq!(claim.change(), claimed[0].change(), "one and the same");
        }
        let change = claimed[0].change().unwrap();
        assert_eq!(world.worth(change).await, (100_000 - charged) / 1000);
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn change_is_composed_without_the_mint() {
    for body in [chat(&model_of(Misbehaviour::Slow)), streamed(&model_of(Misbehaviour::Slow))] {
        let mut world = World::with(Setting::gated()).await;
        let paid = world.sats(100).await;
        let asked = world.chat_later(Pay::XCashu(&paid), &body);
        within("it is forwarded", world.upstream.await_request(1)).await;
        world.mint.stop().await;
        world.upstream.open_gate();
        let answer = asked.answer().await.expect(200);
        let change = answer.change().expect("the mint is not needed").to_owned();
        world.mint.start_again().await.unwrap();
        assert_eq!(world.worth(&change).await, (100_000 - cost()) / 1000);
        world.check_balanced().await;
    }
}

/// Two accounts' refunds can leave the pool with coins that are too large for a third. Only
/// then is the mint needed, and its absence delays the change, not the answer.
#[tokio::test]
async fn change_that_needs_an_absent_mint_is_claimed_when_it_is_back() {
    let mut world = World::with(Setting { more_models: cheap(), ..Setting::gated() }).await;
    // 7 sats are kept as 1, 2 and 4; a refund of 3 leaves the 4.
    let key = world.key(7).await;
    let first = refund_of(&world, Pay::from(&key), 3).await.expect(200);
    // Redeemed, or the same amount would be the same token again.
    assert_eq!(world.worth(first.change().unwrap()).await, 3);
    // 4 sats are kept as 1, 1 and 2; another refund of 3 leaves 4 and 1.
    let paid = world.sats(4).await;
    let asked = world.chat_later(Pay::XCashu(&paid), &chat(CHEAP));
    within("it is forwarded", world.upstream.await_request(1)).await;
    let second = refund_of(&world, Pay::from(&key), 3).await.expect(200);
    assert_ne!(first.change(), second.change());

    // Its change is 3 sats of 4 and 1.
    world.mint.stop().await;
    world.upstream.open_gate();
    let answer = asked.answer().await.expect(200);
    assert_eq!(answer.change(), None);
    assert!(answer.json()["choices"][0]["message"]["content"].is_string());
    for _ in 0..2 {
        assert_pending(&world.refund(Pay::XCashu(&paid)).await);
    }
    world.check_balanced().await;
    world.gateway.restart().await;
    assert_pending(&world.refund(Pay::XCashu(&paid)).await);

    world.mint.start_again().await.unwrap();
    let claim = world.claim(&paid).await.expect(200);
    let change = claim.change().unwrap();
    assert_eq!(world.claim(&paid).await.expect(200).change(), Some(change));
    assert_eq!(world.worth(change).await, 3);
    assert_eq!(world.claim(&paid).await.expect(200).change(), Some(change), "once and the same");
    assert_eq!(world.worth(second.change().unwrap()).await, 3);
    let rest = world.refund(&key).await.expect(200);
    assert_eq!(world.worth(rest.change().unwrap()).await, 1);
    world.check_balanced().await;
}

/// Presents a token whose swap the mint makes and never tells of, and leaves the mint stopped.
async fn leave_undecided(world: &mut World, paid: &str) {
    let swaps = world.mint.swap_count();
    world.mint.hold_swaps(true);
    let asked = world.chat_later(Pay::XCashu(paid), &chat("demo"));
    within("the mint has made the swap", world.mint.await_swaps(swaps + 1)).await;
    world.mint.stop().await;
    world.mint.hold_swaps(false);
    let refused = asked.answer().await;
    let refused = refused.expect_error(500, "internal_error", "cashu_token_consumed");
    assert_eq!(refused.change(), None, "what may be spent is not echoed");
}

async fn refund_of(world: &World, pay: Pay<'_>, sats: u64) -> Answer {
    world.post("/v1/balance/refund", pay, &json!({"amount_sats": sats})).await
}

/// A model that waits at the gate and costs next to nothing: a msat.
fn cheap() -> Vec<Value> {
    let mut model = crate::support::model(CHEAP, &["sandbox"]);
    model["price"] = json!({"currency": "sat", "input": 0, "output": 0.001, "request": 0});
    vec![model]
}

#[track_caller]
fn expect_unreachable(answer: Answer) -> Answer {
    let answer = answer.expect_error(503, "service_unavailable", "cashu_mint_unreachable");
    assert!(answer.header("retry-after").is_some());
    answer
}

#[track_caller]
fn assert_pending(answer: &Answer) {
    let pending = answer.clone().expect_error(425, "invalid_request", "refund_pending");
    assert!(pending.header("retry-after").is_some());
    assert_eq!(pending.change(), None);
}

fn cost() -> u64 {
    PRICE.cost(prompt_tokens(&chat("demo")), 20)
}

const CHEAP: &str = "cheap-slow";
