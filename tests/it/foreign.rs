//! Ecash of a mint that is not accepted is paid in over Lightning, where configuration says so:
//! credited once and exactly, what it costs bounded before anything is taken, and what is left
//! over given back, whatever crashes or is down meanwhile.

use std::os::unix::process::ExitStatusExt;
use std::str::FromStr;

use cdk::nuts::Token;
use nix::sys::signal::Signal;
use nutgate::clock::UnixMs;
use nutgate::crash::Step;
use nutgate_sandbox::{Faucet, Mint, MintOptions, Network, Transit};
use reqwest::Method;

use crate::support::{
    Answer, CurrencyUnit, Fleet, Gateway, Key, LOOK_AGAIN, Pay, Setting, TokenFormat, Value, World,
    chat, json, with, within,
};

const CREATE: &str = "/v1/balance/create";
const TOPUP: &str = "/v1/balance/topup";

/// A world with a mint that is not accepted, and what connects it with the one that is.
struct Abroad {
    world: World,
    mint: Mint,
    faucet: Faucet,
    network: Network,
}

impl Abroad {
    async fn start(config: Value) -> Self {
        Self::with(config, MintOptions::default(), None).await
    }

    /// Reserves 4 sat for a payment, which costs 1: 3 come back.
    async fn with(config: Value, mint: MintOptions, fleet: Option<Fleet>) -> Self {
        let network = Network::default();
        let ours = MintOptions { network: Some(network.clone()), ..MintOptions::default() };
        let mint = MintOptions {
            network: Some(network.clone()),
            payment_fee_reserve: RESERVE_SATS,
            ..mint
        };
        let mint = Mint::start(mint).await.unwrap();
        let faucet = Faucet::new(&mint.url()).unwrap();
        let foreign = json!({
            "mint_timeout": "3s",
            "foreign_mints": {
                "mints": [{"url": mint.url()}], "fee_sats_max": RESERVE_SATS, "fee_permille_max": 0,
            },
        });
        let config = merged(foreign, config);
        let world = World::with(Setting { mint: ours, config, fleet, ..Setting::default() }).await;
        Self { world, mint, faucet, network }
    }

    async fn sats(&self, amount: u64) -> String {
        self.faucet.cashu(amount, CurrencyUnit::Sat, TokenFormat::B).await.unwrap()
    }

    async fn create(&self, ecash: &str) -> Answer {
        let asked = json!({"initial_balance_token": ecash});
        self.world.post(CREATE, Pay::Nothing, &asked).await
    }

    /// The same, as long as it takes.
    async fn created(&self, ecash: &str) -> Value {
        let created = async {
            loop {
                let answer = self.create(ecash).await;
                if answer.status == 200 {
                    return answer.json();
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        within("the payment is credited", created).await
    }

    /// What is left over of a token that was paid in, after a first swap at its mint.
    async fn change(&self, answer: &Value) -> u64 {
        let change = answer["swap"]["change"].as_str().unwrap();
        self.faucet.value_in_fresh_wallet(change).await.unwrap()
    }
}

#[tokio::test]
async fn foreign_ecash_opens_a_key_that_works_and_its_change_comes_back() {
    let abroad = Abroad::start(json!({})).await;
    let world = &abroad.world;
    let ecash = abroad.sats(100).await;
    let later = UnixMs::now().whole_seconds() + 3_600;
    let asked = json!({
        "initial_balance_token": ecash, "balance_limit": 50_000, "validity_date": later,
    });
    let created = world.post(CREATE, Pay::Nothing, &asked).await.expect(200).json();
    let key = Key::of(&ecash);
    let (paid, change) = (100 - RESERVE_SATS, RESERVE_SATS - PAYMENT_SATS);
    let swap = json!({
        "mint": abroad.mint.url(), "value_msats": 100_000, "fees_msats": PAYMENT_SATS * 1000,
        "change": created["swap"]["change"],
    });
    let expected = json!({"api_key": key.0, "balance": paid * 1000, "swap": swap});
    assert_eq!(created, expected);
    let left = Token::from_str(created["swap"]["change"].as_str().unwrap()).unwrap();
    assert_eq!(left.value().unwrap().to_u64(), change);
    // A repetition is the same answer, also when the change was taken.
    assert_eq!(world.post(CREATE, Pay::Nothing, &asked).await.expect(200).json(), created);
    assert_eq!(abroad.change(&created).await, change);
    assert_eq!(world.post(CREATE, Pay::Nothing, &asked).await.expect(200).json(), created);
    let info = world.fetch("/v1/balance/info", Pay::from(&key)).await.expect(200).json();
    assert_eq!((&info["balance_limit"], &info["validity_date"]), (&json!(50_000), &json!(later)));

    world.chat(&key, &chat("demo")).await.expect(200);
    let spent = world.settled(&key).await.spent;
    let refund = world.refund(&key).await.expect(200);
    let worth = world.worth(refund.change().unwrap()).await * 1000;
    assert_eq!(worth + world.info(&key).await.available + spent, paid * 1000);
    assert_eq!(world.deposits(), [paid * 1000], "credited once");
    assert_eq!(abroad.network.paid_count(), 1);
    world.check_balanced().await;
}

#[tokio::test]
async fn foreign_ecash_tops_a_key_up_and_pays_for_no_request() {
    let abroad = Abroad::start(json!({})).await;
    let world = &abroad.world;
    let key = world.key(50).await;
    let ecash = abroad.sats(20).await;
    for pay in [Pay::XCashu(&ecash), Pay::Bearer(&ecash)] {
        let refused = world.chat(pay, &chat("demo")).await;
        refused.expect_error(400, "invalid_request", "mint_not_accepted");
    }
    let refused = world.fetch("/v1/balance/info", Pay::Bearer(&ecash)).await;
    refused.expect_error(400, "invalid_request", "mint_not_accepted");
    assert!(!abroad.faucet.is_spent(&ecash).await.unwrap());
    for _ in 0..2 {
        let asked = json!({"cashu_token": ecash});
        let added = world.post(TOPUP, Pay::from(&key), &asked).await.expect(200).json();
        assert_eq!(added["msats"], 16_000);
        assert_eq!(added["swap"]["fees_msats"], 1_000);
    }
    assert_eq!(world.info(&key).await.available, 66_000);
    let other = world.key(50).await;
    let answer = world.post(TOPUP, Pay::from(&other), &json!({"cashu_token": ecash})).await;
    answer.expect_error(400, "invalid_request", "cashu_token_already_spent");
    let asked = json!({"cashu_token": world.sats(5).await});
    let accepted = world.post(TOPUP, Pay::from(&key), &asked).await.expect(200);
    assert_eq!(accepted.json(), json!({"msats": 5_000}), "as ever");
    // Nobody else's mint is spoken to.
    let stranger = Mint::start(MintOptions::default()).await.unwrap();
    let strange = Faucet::new(&stranger.url()).unwrap();
    let strange = strange.cashu(20, CurrencyUnit::Sat, TokenFormat::B).await.unwrap();
    abroad.create(&strange).await.expect_error(400, "invalid_request", "mint_not_accepted");
    world.check_balanced().await;
}

#[tokio::test]
async fn what_it_costs_is_bounded_and_told_before_anything_is_taken() {
    let fees = json!({"foreign_mints": {"fee_sats_max": 3, "fee_permille_max": 10}});
    let abroad = Abroad::start(fees).await;
    let ecash = abroad.sats(99).await;
    let refused = abroad.create(&ecash).await;
    let code = "cashu_token_swap_fees_exceed_amount";
    let refused = refused.expect_error(422, "invalid_request", code);
    let details = json!({"value": 99_000, "fees": 4_000, "fees_max": 3_990});
    assert_eq!(refused.json()["error"]["details"], details);
    let small = abroad.sats(3).await;
    abroad.create(&small).await.expect_error(422, "invalid_request", code);
    for untouched in [&ecash, &small] {
        assert!(!abroad.faucet.is_spent(untouched).await.unwrap());
        let answer = abroad.world.fetch("/v1/balance/info", Pay::from(&Key::of(untouched))).await;
        answer.expect_error(401, "authentication_failed", "invalid_api_key");
    }
    let kept = "SELECT (SELECT COUNT(*) FROM quotes) + (SELECT COUNT(*) FROM foreign_melts)";
    let database = abroad.world.gateway.database();
    let count: u64 = database.query_row(kept, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 0, "nothing is written down for it");
    let fits = abroad.sats(100).await;
    assert_eq!(abroad.create(&fits).await.expect(200).json()["balance"], 96_000, "at the bound");
}

#[tokio::test]
async fn the_fee_for_the_inputs_counts_and_is_paid_once() {
    let mint = MintOptions { input_fee_ppk: 1000, ..MintOptions::default() };
    let fees = json!({"foreign_mints": {"fee_sats_max": 100}});
    let abroad = Abroad::with(fees, mint, None).await;
    let ecash = abroad.faucet.cashu(100, CurrencyUnit::Sat, TokenFormat::B).await.unwrap();
    let value = Token::from_str(&ecash).unwrap().value().unwrap().to_u64();
    let proofs = u64::try_from(Token::from_str(&ecash).unwrap().token_secrets().len()).unwrap();
    let created = abroad.create(&ecash).await.expect(200).json();
    assert_eq!(created["balance"], (value - proofs - RESERVE_SATS) * 1000);
    assert_eq!(created["swap"]["value_msats"], value * 1000);
    assert_eq!(created["swap"]["fees_msats"], (proofs + PAYMENT_SATS) * 1000);
    abroad.world.check_balanced().await;
}

#[tokio::test]
async fn a_payment_that_fails_or_a_mint_that_is_down_takes_nothing() {
    let mut abroad = Abroad::start(json!({})).await;
    let ecash = abroad.sats(100).await;
    abroad.mint.stop().await;
    let refused = abroad.create(&ecash).await;
    refused.expect_error(503, "service_unavailable", "cashu_mint_unreachable");
    abroad.mint.start_again().await.unwrap();
    abroad.world.mint.stop().await;
    let refused = abroad.create(&ecash).await;
    refused.expect_error(503, "service_unavailable", "cashu_mint_unreachable");
    abroad.world.mint.start_again().await.unwrap();

    abroad.network.transit(Transit::Fail);
    for _ in 0..2 {
        let refused = abroad.create(&ecash).await;
        refused.expect_error(400, "invalid_request", "cashu_token_redemption_failed");
        assert!(!abroad.faucet.is_spent(&ecash).await.unwrap());
    }
    abroad.network.transit(Transit::Arrive);
    // Not taken for the one, it can be the other's.
    let key = abroad.world.key(50).await;
    let asked = json!({"cashu_token": ecash});
    let added = abroad.world.post(TOPUP, Pay::from(&key), &asked).await.expect(200).json();
    assert_eq!(added["msats"], 96_000);
    assert_eq!(abroad.world.info(&key).await.available, 146_000);
    let refused = abroad.create(&ecash).await;
    refused.expect_error(400, "invalid_request", "cashu_token_already_spent");
    let other = abroad.sats(100).await;
    abroad.faucet.value_in_fresh_wallet(&other).await.unwrap();
    let refused = abroad.create(&other).await;
    refused.expect_error(400, "invalid_request", "cashu_token_already_spent");
    abroad.world.check_balanced().await;
}

#[tokio::test]
async fn a_payment_that_is_late_or_stuck_or_not_answered_is_credited_once() {
    let mut abroad = Abroad::start(json!({"mint_timeout": "300ms"})).await;
    let mut sum = 0;
    for transit in [Transit::AreLate, Transit::AreStuck, Transit::AreNotAnswered] {
        for foreign_is_down in [false, true] {
            let ecash = abroad.sats(100).await;
            abroad.network.transit(transit);
            // A busy mint may need longer than this gateway waits, before anything is taken.
            let taken = async {
                loop {
                    let answer = abroad.create(&ecash).await;
                    if answer.status != 503 {
                        return answer;
                    }
                }
            };
            let answer = within("the foreign mint is asked", taken).await;
            if answer.status != 200 {
                answer.expect_error(500, "internal_error", "cashu_token_consumed");
                let again = abroad.create(&ecash).await;
                assert!([200, 500].contains(&again.status), "{transit:?}: {}", again.status);
            }
            if foreign_is_down {
                abroad.mint.stop().await;
            }
            abroad.network.transit(Transit::Arrive);
            // Whether anybody asks again or not.
            let key = Key::of(&ecash);
            credited(&abroad.world, &abroad.world.gateway, &key).await;
            assert_eq!(abroad.world.info(&key).await.available, 96_000, "{transit:?}");
            if foreign_is_down {
                abroad.mint.start_again().await.unwrap();
            }
            let created = abroad.created(&ecash).await;
            assert_eq!(created["balance"], 96_000);
            assert_eq!(created["swap"]["fees_msats"], 1_000, "{transit:?}");
            assert_eq!(abroad.change(&created).await, 3);
            sum += 1;
        }
    }
    assert_eq!(abroad.world.deposits(), vec![96_000; sum]);
    abroad.world.check_balanced().await;
}

#[tokio::test]
async fn no_crash_costs_anybody_who_pays_with_foreign_ecash() {
    let mut abroad = Abroad::start(json!({})).await;
    for step in Step::OF_FOREIGN {
        let ecash = abroad.sats(100).await;
        abroad.world.gateway.set_env(CRASH_AT, &step.name());
        abroad.world.gateway.restart().await;
        let asked = json!({"initial_balance_token": ecash, "balance_limit": 9_000});
        let request = abroad.world.request(Method::POST, CREATE, Pay::Nothing);
        assert!(request.body(asked.to_string()).send().await.is_err(), "{step:?}");
        let died = abroad.world.gateway.ended().await;
        assert_eq!(died.signal(), Some(Signal::SIGKILL as i32), "{step:?}");
        abroad.world.check_balanced().await;
        abroad.world.gateway.clear_env(CRASH_AT);
        abroad.world.gateway.restart().await;
        let key = Key::of(&ecash);
        if step == Step::MeltRecorded {
            assert!(!abroad.faucet.is_spent(&ecash).await.unwrap(), "untouched");
            let again = abroad.world.post(CREATE, Pay::Nothing, &asked).await;
            again.expect(200);
        } else {
            // Nobody needs to ask for it.
            credited(&abroad.world, &abroad.world.gateway, &key).await;
        }
        let created = abroad.created(&ecash).await;
        assert_eq!(created["balance"], 96_000, "{step:?}");
        assert_eq!(abroad.change(&created).await, 3, "{step:?}");
        let info = abroad.world.fetch("/v1/balance/info", Pay::from(&key)).await.expect(200);
        assert_eq!(info.json()["balance_limit"], 9_000, "{step:?}");
        abroad.world.check_balanced().await;
    }
    assert_eq!(abroad.world.deposits(), [96_000; Step::OF_FOREIGN.len()]);
    assert_eq!(abroad.network.paid_count(), Step::OF_FOREIGN.len(), "each paid once");
}

#[tokio::test]
async fn in_a_fleet_two_gateways_credit_it_once_and_one_finishes_the_others() {
    let fleet = Some(Fleet::of(2));
    let mut abroad = Abroad::with(json!({}), MintOptions::default(), fleet).await;
    let ecash = abroad.sats(100).await;
    let asked = json!({"initial_balance_token": ecash});
    let world = &abroad.world;
    let (one, two) = tokio::join!(
        create_at(world, &world.gateway, &asked),
        create_at(world, &world.others[0], &asked)
    );
    for answer in [one, two] {
        let answer = answer.unwrap();
        assert!([200, 500].contains(&answer.status), "credited, or not known yet");
    }
    assert_eq!(abroad.created(&ecash).await["balance"], 96_000);
    assert_eq!(abroad.network.paid_count(), 1);
    world.check_balanced().await;

    abroad.world.gateway.set_env(CRASH_AT, &Step::MeltPaid.name());
    abroad.world.gateway.restart().await;
    let ecash = abroad.sats(100).await;
    let asked = json!({"initial_balance_token": ecash});
    assert!(create_at(&abroad.world, &abroad.world.gateway, &asked).await.is_err());
    abroad.world.gateway.ended().await;
    let world = &abroad.world;
    let key = Key::of(&ecash);
    let balance = credited(world, &world.others[0], &key).await;
    assert_eq!(balance, 96_000);
    let again = create_at(world, &world.others[0], &asked).await.unwrap().expect(200).json();
    assert_eq!(abroad.change(&again).await, 3);
    world.check_balanced().await;
}

/// Returns the balance when the account is there.
async fn credited(world: &World, gateway: &Gateway, key: &Key) -> u64 {
    let credited = async {
        loop {
            let path = "/v1/balance/info";
            let request = world.request_to(gateway, Method::GET, path, Pay::from(key));
            let answer = Answer::read(request.send().await.unwrap()).await.unwrap();
            let balance = (answer.status == 200).then(|| answer.json()["balance"].as_u64());
            if let Some(balance) = balance.flatten().filter(|balance| *balance > 0) {
                return balance;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("it is credited", credited).await
}

async fn create_at(world: &World, gateway: &Gateway, asked: &Value) -> reqwest::Result<Answer> {
    let request = world.request_to(gateway, Method::POST, CREATE, Pay::Nothing);
    Answer::read(request.body(asked.to_string()).send().await?).await
}

/// The foreign mints of `config` are what it says of them over what is usual.
fn merged(usual: Value, config: Value) -> Value {
    let members = config.get("foreign_mints").cloned().unwrap_or_else(|| json!({}));
    let foreign = with(usual["foreign_mints"].clone(), members);
    with(with(usual, config), json!({"foreign_mints": foreign}))
}

const CRASH_AT: &str = "NUTGATE_CRASH_AT";

/// What the foreign mint reserves for a payment, and what it takes.
const RESERVE_SATS: u64 = 4;
const PAYMENT_SATS: u64 = 1;
