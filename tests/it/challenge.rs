//! A refusal for want of money says what it takes to be served, in words that wallets pay.

use nutgate_sandbox::{CurrencyUnit, PaymentRequest};

use crate::support::{
    Answer, PRICE, Pay, Setting, Value, World, chat, json, length, streamed, with,
};

/// The payment request in the head of an answer.
#[track_caller]
fn asked(answer: &Answer) -> PaymentRequest {
    let text = answer.header("x-cashu").expect("a payment request");
    assert_eq!(answer.header("x-cashu-refund"), None, "it is no change");
    text.parse().unwrap()
}

/// A body that names its limit, and what is reserved for it, in whole sats.
fn priced() -> (Value, u64) {
    let body = with(chat("demo"), json!({"max_tokens": 500}));
    let ceiling = PRICE.ceiling(length(body.to_string()), 500, 1);
    (body, ceiling.div_ceil(1000))
}

#[tokio::test]
async fn a_request_without_a_credential_is_told_what_to_pay_and_paying_it_buys_the_answer() {
    let world = World::start().await;
    let (body, sats) = priced();
    let refused = world.chat(Pay::Nothing, &body).await;
    let refused = refused.expect_error(401, "authentication_failed", "missing_api_key");
    let request = asked(&refused);
    assert_eq!(request.amount, Some(sats.into()));
    assert_eq!(request.unit, Some(CurrencyUnit::Sat));
    assert_eq!(request.mints, vec![world.mint.url().parse().unwrap()]);
    assert!(request.transports.is_empty(), "the ecash comes back in a header");
    assert_eq!(world.upstream.count(), 0);
    let ecash = world.sats(sats).await;
    let answer = world.chat(Pay::XCashu(&ecash), &body).await.expect(200);
    assert!(answer.change().is_some());
    // One sat less is refused, as it was sent.
    let ecash = world.sats(sats - 1).await;
    let refused = world.chat(Pay::XCashu(&ecash), &body).await.expect(402);
    assert_eq!(refused.change(), Some(ecash.as_str()));
}

#[tokio::test]
async fn the_status_of_a_request_without_a_credential_changes_nothing_of_what_it_is_told() {
    let setting = Setting::config(json!({"errors": {"missing_credential_status": 402}}));
    let world = World::with(setting).await;
    let (body, sats) = priced();
    let refused = world.chat(Pay::Nothing, &body).await.expect(402);
    assert_eq!(asked(&refused).amount, Some(sats.into()));
}

#[tokio::test]
async fn a_key_without_enough_money_is_told_what_the_request_reserves() {
    let world = World::start().await;
    let key = world.key(1).await;
    let (body, sats) = priced();
    let refused = world.chat(&key, &body).await.expect(402);
    assert_eq!(asked(&refused).amount, Some(sats.into()));
}

#[tokio::test]
async fn whoever_showed_ecash_gets_nothing_but_ecash() {
    let world = World::start().await;
    let (body, _) = priced();
    let ecash = world.sats(1).await;
    let refused = world.chat(Pay::XCashu(&ecash), &body).await.expect(402);
    assert_eq!(refused.change(), Some(ecash.as_str()));
    let refused = world.chat(Pay::Bearer(&ecash), &body).await.expect(402);
    assert_eq!(refused.header("x-cashu"), None);
}

#[tokio::test]
async fn what_cannot_be_sold_asks_for_no_payment() {
    let world = World::start().await;
    for body in [chat("nobody-sells-this"), json!({"model": "demo"}), json!([])] {
        let refused = world.chat(Pay::Nothing, &body).await.expect(401);
        assert_eq!(refused.header("x-cashu"), None, "{body}");
    }
    let bad = world.chat(Pay::Bearer("sk-short"), &streamed("demo")).await.expect(401);
    assert_eq!(bad.header("x-cashu"), None);
}
