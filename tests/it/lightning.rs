//! Lightning in, a key out: every invoice that is paid is credited once, whatever happens
//! between the payment and the balance, and one that is not paid never is.

use std::os::unix::process::ExitStatusExt;
use std::str::FromStr;

use cdk::Bolt11Invoice;
use nix::sys::signal::Signal;
use nutgate::crash::Step;
use reqwest::Method;
use sha2::{Digest, Sha256};

use crate::support::{
    Answer, CRASH_AT, Fleet, Gateway, Key, LOOK_AGAIN, Pay, Setting, Value, World, assert_killed,
    chat, json, start_to_die_at, with, within,
};

#[tokio::test]
async fn a_payment_opens_a_key_that_works() {
    let world = World::start().await;
    let offered = create(&world, 100).await;
    let invoice = Bolt11Invoice::from_str(offered["bolt11"].as_str().unwrap()).unwrap();
    assert_eq!(invoice.amount_milli_satoshis(), Some(100_000));
    assert_eq!(offered["payment_hash"], invoice.payment_hash().to_string());
    assert_eq!(offered["amount_sats"], 100);
    let id = id_of(&offered);
    assert!(id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit()));

    let paid = paid(&world, &id).await;
    let key = Key(paid["api_key"].as_str().unwrap().to_owned());
    assert_eq!(key, key_of(&id), "by the documented derivation");
    assert_eq!(paid["amount_sats"], 100);
    assert_eq!(paid["expires_at"], offered["expires_at"]);
    let at = |name: &str| paid[name].as_u64().unwrap();
    assert!(at("created_at") <= at("paid_at") && at("paid_at") <= at("expires_at"), "{paid}");

    assert_eq!(world.info(&key).await.available, 100_000);
    world.chat(&key, &chat("demo")).await.expect(200);
    let refund = world.refund(&key).await.expect(200);
    let worth = world.worth(refund.change().unwrap()).await * 1000;
    let left = world.info(&key).await;
    assert!(worth > 0 && left.spent > 0);
    assert_eq!(worth + left.available + left.spent, 100_000, "it can be paid back as ecash");
    assert_eq!(status(&world, &id).await.expect(200).json(), paid, "the same for ever");
    world.check_balanced().await;
}

#[tokio::test]
async fn a_payment_tops_a_key_up_and_nothing_else() {
    let world = World::start().await;
    let key = world.key(50).await;
    let asked = json!({"amount_sats": 7, "purpose": "topup"});
    let path = "/v1/balance/lightning/invoice";
    let offered = world.post(path, Pay::from(&key), &asked).await.expect(200).json();
    let paid = paid(&world, &id_of(&offered)).await;
    assert_eq!(paid.get("api_key"), None, "who may see the invoice may not see the key");
    assert_eq!(world.info(&key).await.available, 57_000);

    let answer = world.post(path, Pay::Nothing, &asked).await;
    answer.expect_error(401, "authentication_failed", "missing_api_key");
    let unknown = Key(format!("sk-{}", "0".repeat(32)));
    let answer = world.post(path, Pay::from(&unknown), &asked).await;
    answer.expect_error(401, "authentication_failed", "invalid_api_key");
    assert_eq!(world.deposits().len(), 2);
    world.check_balanced().await;
}

/// All that a web page needs to sell a key: no SDK, no header of its own, and it reads the
/// answers from another origin.
#[tokio::test]
async fn a_page_of_another_origin_can_do_all_of_it() {
    let world = World::start().await;
    for prefix in ["", "/v1", "/v1/balance", "/v1/wallet", "/balance", "/wallet"] {
        let path = format!("{prefix}/lightning/invoice");
        let asked = json!({"amount_sats": 3, "purpose": "create"});
        let request = world.client.post(world.gateway.url() + &path);
        let request = request.header("origin", "https://page.example").body(asked.to_string());
        let offered = Answer::read(request.send().await.unwrap()).await.unwrap().expect(200);
        assert_eq!(offered.header("access-control-allow-origin"), Some("*"));
        assert_eq!(offered.header("cache-control"), Some("no-store"));
        let id = id_of(&offered.json());
        let path = format!("{path}/{id}/status");
        let status = world.fetch(&path, Pay::Nothing).await.expect(200);
        assert_eq!(status.header("access-control-allow-origin"), Some("*"));
        assert_eq!(status.json()["amount_sats"], 3, "{path}");
        let preflight = world.request(Method::OPTIONS, &path, Pay::Nothing).send().await.unwrap();
        assert_eq!(preflight.status(), 204);
    }
}

#[tokio::test]
async fn an_invoice_that_cannot_be_names_its_field() {
    let config = json!({"lightning": {"amount_sats_max": 1_000}});
    let world = World::with(Setting::config(config)).await;
    let good = json!({"amount_sats": 1_000, "purpose": "create"});
    world.post(INVOICE, Pay::Nothing, &good).await.expect(200);
    for (wrong, field) in [
        (json!({"amount_sats": 0}), "amount_sats"),
        (json!({"amount_sats": -1}), "amount_sats"),
        (json!({"amount_sats": 1.5}), "amount_sats"),
        (json!({"amount_sats": "1"}), "amount_sats"),
        (json!({"amount_sats": null}), "amount_sats"),
        (json!({"amount_sats": 1_001}), "amount_sats"),
        (json!({"amount_sats": u64::MAX}), "amount_sats"),
        (json!({"purpose": null}), "purpose"),
        (json!({"purpose": "gift"}), "purpose"),
        (json!({"purpose": "topup", "balance_limit": 1}), "balance_limit"),
        (json!({"balance_limit": -1}), "balance_limit"),
        (json!({"balance_limit_reset": "daily"}), "balance_limit"),
        (json!({"balance_limit": 1, "balance_limit_reset": "hourly"}), "balance_limit_reset"),
        (json!({"validity_date": 1}), "validity_date"),
    ] {
        let body = with(good.clone(), wrong);
        let answer = world.post(INVOICE, Pay::Nothing, &body).await;
        let answer = answer.expect_error(400, "invalid_request", "invalid_value");
        assert_eq!(answer.json()["error"]["details"]["param"], field, "{body}");
    }
    let elsewhere = with(good, json!({"mint": "https://mint.example"}));
    let answer = world.post(INVOICE, Pay::Nothing, &elsewhere).await;
    answer.expect_error(400, "invalid_request", "mint_not_accepted");
    for id in ["0".repeat(64), "x".to_owned(), "0".repeat(65)] {
        let answer = status(&world, &id).await;
        answer.expect_error(404, "not_found", "invoice_not_found");
    }
}

#[tokio::test]
async fn a_key_has_the_limit_that_its_invoice_was_asked_with() {
    let world = World::start().await;
    let terms = json!({"balance_limit": 1, "balance_limit_reset": "daily"});
    let asked = with(json!({"amount_sats": 100, "purpose": "create"}), terms);
    let offered = world.post(INVOICE, Pay::Nothing, &asked).await.expect(200).json();
    let id = id_of(&offered);
    paid(&world, &id).await;
    let answer = world.chat(&key_of(&id), &chat("demo")).await;
    answer.expect_error(402, "insufficient_balance", "balance_limit_exceeded");
}

#[tokio::test]
async fn a_gateway_that_takes_no_lightning_says_so_and_credits_what_it_took() {
    let mut world = World::start().await;
    world.mint.leave_unpaid(true);
    let id = id_of(&create(&world, 5).await);
    let path = world.gateway.config_path();
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["lightning"] = json!({"enabled": false});
    std::fs::write(&path, config.to_string()).unwrap();
    world.gateway.restart().await;
    world.mint.leave_unpaid(false);
    let asked = json!({"amount_sats": 5, "purpose": "create"});
    let answer = world.post(INVOICE, Pay::Nothing, &asked).await;
    answer.expect_error(404, "not_found", "lightning_not_offered");
    paid(&world, &id).await;
}

#[tokio::test]
async fn a_payment_during_a_restart_and_an_outage_of_the_mint_is_credited_once() {
    let mut world = World::start().await;
    world.mint.leave_unpaid(true);
    let id = id_of(&create(&world, 40).await);
    let pending = status(&world, &id).await.expect(200).json();
    assert_eq!((&pending["status"], &pending["paid_at"]), (&json!("pending"), &Value::Null));
    assert_eq!(pending.get("api_key"), None, "not before it is of use");
    world.gateway.kill().await;
    world.mint.leave_unpaid(false);
    world.mint.stop().await;
    world.gateway.restart().await;
    assert_eq!(status(&world, &id).await.expect(200).json()["status"], "pending");
    let asked = json!({"amount_sats": 5, "purpose": "create"});
    let answer = world.post(INVOICE, Pay::Nothing, &asked).await;
    let answer = answer.expect_error(503, "service_unavailable", "lightning_unavailable");
    assert!(answer.number("retry-after") >= 1);
    world.mint.start_again().await.unwrap();
    paid(&world, &id).await;
    assert_eq!(world.deposits(), [40_000]);
    world.check_balanced().await;
}

#[tokio::test]
async fn two_gateways_of_a_fleet_credit_a_payment_once() {
    let setting = Setting { fleet: Some(Fleet::of(2)), ..Setting::default() };
    let world = World::with(setting).await;
    for sats in [10, 11, 12] {
        let id = id_of(&create(&world, sats).await);
        let one = async { paid_at(&world, &world.gateway, &id).await };
        let other = async { paid_at(&world, &world.others[0], &id).await };
        let (one, other) = tokio::join!(one, other);
        assert_eq!(one["api_key"], other["api_key"]);
        assert_eq!(world.info(&key_of(&id)).await.available, sats * 1000);
    }
    assert_eq!(world.mint.issue_count(), 3);
    world.check_balanced().await;
}

/// The id opens the key, so neither is in a log at any level or in a file.
#[tokio::test]
async fn neither_the_invoices_id_nor_its_key_is_written_down() {
    let mut world = World::with(Setting::config(json!({"log": "trace"}))).await;
    let id = id_of(&create(&world, 9).await);
    paid(&world, &id).await;
    let key = key_of(&id);
    world.info(&key).await;
    world.gateway.sigterm();
    world.gateway.ended().await;
    let log = world.gateway.log();
    assert!(log.contains("path=/lightning/invoice/-/status"), "{log}");
    let files = std::fs::read_dir(world.gateway.data_dir()).unwrap();
    let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    for written in files.chain([log.into_bytes()]) {
        for secret in [&id, &key.0] {
            let found = written.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret was written");
        }
    }
}

#[tokio::test]
async fn no_crash_costs_anybody_who_pays_over_lightning() {
    for step in Step::OF_INVOICE {
        let mut world = World::start().await;
        start_to_die_at(&mut world, step).await;
        let is_shown = !matches!(step, Step::QuoteRecorded | Step::QuoteOffered);
        // Nobody pays an invoice that nobody has.
        world.mint.leave_unpaid(!is_shown);
        let asked = json!({"amount_sats": SATS, "purpose": "create"});
        let request = world.request(Method::POST, INVOICE, Pay::Nothing).body(asked.to_string());
        let shown = match request.send().await {
            Ok(response) => {
                let id = id_of(&Answer::read(response).await.unwrap().expect(200).json());
                die_while_asked(&world, &id).await;
                Some(id)
            }
            Err(_) => None,
        };
        assert_eq!(shown.is_some(), is_shown, "{step:?}");
        assert_killed(&mut world, step).await;
        world.check_balanced().await;
        world.gateway.clear_env(CRASH_AT);
        world.gateway.restart().await;
        let Some(id) = shown else {
            assert!(world.deposits().is_empty(), "{step:?}");
            world.mint.leave_unpaid(false);
            let id = id_of(&create(&world, SATS).await);
            paid(&world, &id).await;
            continue;
        };
        paid(&world, &id).await;
        let balance = world.info(&key_of(&id)).await;
        assert_eq!((balance.available, balance.spent), (SATS * 1000, 0), "{step:?}");
        assert_eq!(world.deposits(), [SATS * 1000], "{step:?}");
        assert_eq!(world.mint.issue_count(), 1, "signed for once");
        world.check_balanced().await;
    }
}

/// One payment that meets a crash at each step in turn, all but the first in recovery.
#[tokio::test]
async fn a_payment_over_lightning_survives_a_crash_at_every_step_one_after_the_other() {
    let mut world = World::start().await;
    start_to_die_at(&mut world, Step::QuotePaid).await;
    let id = id_of(&create(&world, SATS).await);
    die_while_asked(&world, &id).await;
    assert_killed(&mut world, Step::QuotePaid).await;
    for step in [Step::QuoteSigned, Step::Redeemed, Step::Deposited, Step::Credited] {
        world.gateway.set_env(CRASH_AT, &step.name());
        let died = world.gateway.try_restart().await.expect_err("recovery goes past the step");
        assert_eq!(died.signal(), Some(Signal::SIGKILL as i32), "{step:?}");
        world.check_balanced().await;
    }
    world.gateway.clear_env(CRASH_AT);
    world.gateway.restart().await;
    assert_eq!(status(&world, &id).await.expect(200).json()["status"], "paid");
    assert_eq!(world.deposits(), [SATS * 1000]);
    assert_eq!(world.mint.issue_count(), 1, "signed for once");
    world.check_balanced().await;
}

async fn create(world: &World, sats: u64) -> Value {
    let asked = json!({"amount_sats": sats, "purpose": "create"});
    world.post(INVOICE, Pay::Nothing, &asked).await.expect(200).json()
}

async fn status(world: &World, id: &str) -> Answer {
    world.fetch(&status_path(id), Pay::Nothing).await
}

/// The status once it says that the invoice is paid.
async fn paid(world: &World, id: &str) -> Value {
    paid_at(world, &world.gateway, id).await
}

async fn paid_at(world: &World, gateway: &Gateway, id: &str) -> Value {
    let paid = async {
        loop {
            let request = world.request_to(gateway, Method::GET, &status_path(id), Pay::Nothing);
            let answer = Answer::read(request.send().await.unwrap()).await.unwrap();
            let status = answer.expect(200).json();
            match status["status"].as_str() {
                Some("paid") => return status,
                Some("pending") => tokio::time::sleep(LOOK_AGAIN).await,
                _ => panic!("{status}"),
            }
        }
    };
    within("the invoice is paid", paid).await
}

/// Asks for the status until nobody answers any more.
async fn die_while_asked(world: &World, id: &str) {
    let path = status_path(id);
    let dead = async {
        while world.request(Method::GET, &path, Pay::Nothing).send().await.is_ok() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the gateway dies", dead).await;
}

fn status_path(id: &str) -> String {
    format!("/lightning/invoice/{id}/status")
}

fn id_of(offered: &Value) -> String {
    offered["invoice_id"].as_str().unwrap().to_owned()
}

fn key_of(id: &str) -> Key {
    let digest = hex::encode(Sha256::digest(format!("nutgate invoice key:{id}")));
    Key(format!("sk-{}", &digest[..32]))
}

const INVOICE: &str = "/lightning/invoice";

/// What every invoice of the crashes is for.
const SATS: u64 = 23;
