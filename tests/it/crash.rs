//! SIGKILL at every named step, and not one msat is lost: a token is worth what can be claimed,
//! what was recorded as cost, and less than a sat that stays on the account.
//!
//! The steps are those of [`Step::ALL`], each killed in every way to pay and to be answered.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nutgate::crash::Step;
use reqwest::Method;

use crate::support::{
    Answer, CRASH_AT, PRICE, Pay, Value, World, assert_killed, chat, json, prompt_tokens,
    start_to_die_at, streamed,
};

/// How a payment is made and its answer is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    XCashu,
    /// An event stream paid by `X-Cashu` is held until its change is known.
    XCashuStream,
    CashuBearer,
    CashuBearerStream,
    /// A key is created, used and paid back.
    Key,
}

impl Way {
    fn is_per_request(self) -> bool {
        matches!(self, Self::XCashu | Self::XCashuStream)
    }

    /// Whether this way leads past that step. All do, but for one thing: what a Cashu token used
    /// as a key leaves over stays on its account, so that nothing is withdrawn.
    fn reaches(self, step: Step) -> bool {
        let withdraws = [Step::WithdrawBegun, Step::ChangeIssued, Step::WithdrawCommitted];
        let keeps = matches!(self, Self::CashuBearer | Self::CashuBearerStream);
        !(keeps && withdraws.contains(&step))
    }

    fn body(self) -> Value {
        match self {
            Self::XCashu | Self::CashuBearer | Self::Key => chat("demo"),
            Self::XCashuStream | Self::CashuBearerStream => streamed("demo"),
        }
    }

    /// All that the client does, until it is done or the gateway is. Answers with the ecash that
    /// it has in hand then.
    async fn spend(self, world: &World, paid: &str) -> reqwest::Result<Option<String>> {
        let body = self.body();
        let pay = match self {
            Self::XCashu | Self::XCashuStream => Pay::XCashu(paid),
            Self::CashuBearer | Self::CashuBearerStream => Pay::Bearer(paid),
            Self::Key => {
                let asked = json!({"initial_balance_token": paid});
                let created = post(world, "/v1/balance/create", Pay::Nothing, &asked).await?;
                let key = created.expect(200).json()["api_key"].as_str().unwrap().to_owned();
                let pay = Pay::Bearer(&key);
                post(world, "/v1/chat/completions", pay, &body).await?.expect(200);
                let refunded = post(world, "/v1/balance/refund", pay, &json!({})).await?;
                return Ok(refunded.expect(200).change().map(str::to_owned));
            }
        };
        let answer = post(world, "/v1/chat/completions", pay, &body).await?.expect(200);
        assert_eq!(answer.change().is_some(), self.is_per_request());
        Ok(answer.change().map(str::to_owned))
    }
}

#[tokio::test]
async fn no_crash_costs_anybody_who_pays_by_x_cashu() {
    die_at_every_step(Way::XCashu).await;
}

#[tokio::test]
async fn no_crash_costs_anybody_who_streams_by_x_cashu() {
    die_at_every_step(Way::XCashuStream).await;
}

#[tokio::test]
async fn no_crash_costs_anybody_whose_token_is_the_key() {
    die_at_every_step(Way::CashuBearer).await;
}

#[tokio::test]
async fn no_crash_costs_anybody_who_streams_with_a_token_as_the_key() {
    die_at_every_step(Way::CashuBearerStream).await;
}

#[tokio::test]
async fn no_crash_costs_anybody_with_a_key_of_their_own() {
    die_at_every_step(Way::Key).await;
}

async fn die_at_every_step(way: Way) {
    let mut world = World::start().await;
    for step in Step::ALL {
        let paid = world.sats(SATS).await;
        let asked_before = world.upstream.count();
        start_to_die_at(&mut world, step).await;
        let in_hand = way.spend(&world, &paid).await;
        if way.reaches(step) {
            assert_killed(&mut world, step).await;
            world.check_balanced().await;
        } else {
            assert!(in_hand.is_ok(), "{way:?} goes on beyond {step:?}");
            // The client has its answer a moment before the settle that was sent is recorded;
            // a kill between the two would leave the request to the ledger's deadline.
            world.settled(Pay::Bearer(&paid)).await;
        }
        world.gateway.clear_env(CRASH_AT);
        world.gateway.restart().await;
        assert_asked_once(world.upstream.count() - asked_before, step);
        prove(&world, way, step, &paid, in_hand.ok().flatten()).await;
        world.check_balanced().await;
    }
}

/// What was paid in is what comes out and what was charged, to the msat.
async fn prove(world: &World, way: Way, step: Step, paid: &str, in_hand: Option<String>) {
    let charged = if is_before(step, Step::Settled) { 0 } else { cost(way) };
    if way.is_per_request() {
        let claim = world.claim(paid).await;
        if claim.status == 404 {
            assert_eq!(step, Step::RedeemRecorded, "the only one before the mint is asked");
            claim.expect_error(404, "not_found", "refund_not_found");
            assert_eq!(world.worth(paid).await, SATS, "the token is untouched");
            return;
        }
        assert_eq!(world.info(Pay::Bearer(paid)).await.spent, charged, "{step:?}");
        redeem_once(world, way, paid, claim, in_hand).await;
        return;
    }
    // A token that was not redeemed is now, by this very look at it.
    let balance = world.info(Pay::Bearer(paid)).await;
    assert_eq!((balance.reserved, balance.spent), (0, charged), "{step:?}");
    if way == Way::Key || !is_before(step, Step::Settled) {
        let refund = world.refund(Pay::Bearer(paid)).await;
        redeem_once(world, way, paid, refund, in_hand).await;
    } else {
        assert_eq!(balance.available, SATS * 1000, "{step:?}");
    }
}

/// The refund is the one that the client may have in hand already, the same on every repeat,
/// and worth what is missing.
async fn redeem_once(world: &World, way: Way, paid: &str, refund: Answer, in_hand: Option<String>) {
    let refund = refund.expect(200);
    let ecash = refund.change().unwrap().to_owned();
    assert_eq!(refund.json()["token"], ecash);
    if let Some(in_hand) = in_hand {
        assert_eq!(in_hand, ecash, "{way:?}");
    }
    let pay = if way.is_per_request() { Pay::XCashu(paid) } else { Pay::Bearer(paid) };
    assert_eq!(world.refund(pay).await.expect(200).change(), Some(&*ecash), "not yet redeemed");
    let worth = world.worth(&ecash).await * 1000;
    assert_eq!(world.refund(pay).await.expect(200).change(), Some(&*ecash), "redeemed");
    let balance = world.info(Pay::Bearer(paid)).await;
    assert!(balance.available < 1000 && balance.reserved == 0, "{balance:?}");
    assert_eq!(worth + balance.available + balance.spent, SATS * 1000);
}

/// One payment that meets a crash at each step in turn, in recovery too where it is there that
/// the step is reached.
#[tokio::test]
async fn a_payment_survives_a_crash_at_every_step_one_after_the_other() {
    let mut world = World::start().await;
    let paid = world.sats(SATS).await;
    // The reservation of a dead gateway is free again, so each try is a request of its own;
    // those that got as far as `Settled` are charged.
    let mut charged = 0;
    let crashes = Step::ALL.into_iter().filter(|step| *step != Step::Delivered);
    for step in crashes {
        world.gateway.set_env(CRASH_AT, &step.name());
        if world.gateway.try_restart().await.is_ok() {
            drop(Way::XCashu.spend(&world, &paid).await);
            let settles = !is_before(step, Step::Settled);
            charged += if settles { cost(Way::XCashu) } else { 0 };
            assert_killed(&mut world, step).await;
        }
        world.check_balanced().await;
    }
    world.gateway.clear_env(CRASH_AT);
    world.gateway.restart().await;
    let claim = world.claim(&paid).await;
    let balance = world.info(Pay::Bearer(&paid)).await;
    assert_eq!(balance.spent, charged);
    assert!(charged > cost(Way::XCashu), "more than one of them was charged");
    redeem_once(&world, Way::XCashu, &paid, claim, None).await;
}

/// What recovery does is as safe as what it recovers: every step that it passes, after every
/// crash that leaves it something to do.
#[tokio::test]
async fn a_crash_in_recovery_costs_nobody_anything() {
    let mut world = World::start().await;
    for first in Step::ALL {
        for second in recovered(first) {
            let paid = world.sats(SATS).await;
            start_to_die_at(&mut world, first).await;
            drop(Way::XCashu.spend(&world, &paid).await);
            assert_killed(&mut world, first).await;
            world.gateway.set_env(CRASH_AT, &second.name());
            let died = world.gateway.try_restart().await;
            let signal = died.expect_err("recovery goes past the second step").signal();
            assert_eq!(signal, Some(Signal::SIGKILL as i32), "{first:?} {second:?}");
            world.check_balanced().await;
            world.gateway.clear_env(CRASH_AT);
            world.gateway.restart().await;
            prove(&world, Way::XCashu, first, &paid, None).await;
            world.check_balanced().await;
        }
    }
}

/// The steps that recovery passes when it repairs what a crash at `step` left.
fn recovered(step: Step) -> &'static [Step] {
    match step {
        Step::SwapAnswered => &[Step::Redeemed, Step::Deposited, Step::Credited],
        // Credit is repeated from its beginning: the same deposit again is the first one.
        Step::Redeemed | Step::Deposited => &[Step::Deposited, Step::Credited],
        // So is issuing.
        Step::WithdrawBegun | Step::ChangeIssued => &[Step::ChangeIssued, Step::WithdrawCommitted],
        // Nothing was taken, or nothing is left to do but to end a reservation.
        Step::RedeemRecorded
        | Step::Credited
        | Step::Reserved
        | Step::Forwarded
        | Step::Answered
        | Step::Streaming
        | Step::StreamEnded
        | Step::Settled
        | Step::WithdrawCommitted
        | Step::Delivered => &[],
        Step::MeltRecorded | Step::MeltPaid => unreachable!("no mint here is foreign"),
        Step::SweepReserved | Step::SweepSettled => unreachable!("change is never swept here"),
        Step::Opened => unreachable!("no token without terms gets there; see terms.rs"),
        Step::AnswerKept | Step::Claimed | Step::Executed => {
            unreachable!("only with an Idempotency-Key; see idempotency.rs")
        }
        Step::QuoteRecorded | Step::QuoteOffered | Step::QuotePaid | Step::QuoteSigned => {
            unreachable!("no token gets there; see lightning.rs")
        }
        Step::PaymentPlanned | Step::PaymentBegun | Step::PaymentAnswered | Step::PaymentEnded => {
            unreachable!("no token gets there; see lightning_refund.rs")
        }
    }
}

/// The upstream got the request once if it got it: its answer says so, at `Forwarded` it may
/// still be on its way.
fn assert_asked_once(asked: u64, step: Step) {
    let least = u64::from(!is_before(step, Step::Answered));
    let most = u64::from(!is_before(step, Step::Forwarded));
    assert!((least..=most).contains(&asked), "{step:?}: asked {asked} times");
}

async fn post(world: &World, path: &str, pay: Pay<'_>, body: &Value) -> reqwest::Result<Answer> {
    let request = world.request(Method::POST, path, pay).body(body.to_string());
    Answer::read(request.send().await?).await
}

fn cost(way: Way) -> u64 {
    PRICE.cost(prompt_tokens(&way.body()), OUTPUT_TOKENS)
}

fn is_before(step: Step, other: Step) -> bool {
    let position = |wanted| Step::ALL.iter().position(|step| *step == wanted);
    position(step) < position(other)
}

/// What every token is worth.
const SATS: u64 = 100;

/// How much the upstream says when nobody limits it.
const OUTPUT_TOKENS: u64 = 20;
