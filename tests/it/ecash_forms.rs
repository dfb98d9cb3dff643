//! Ecash in every form that wallets write it in: what a Cashu token says counts, not how it is
//! put.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;

use crate::support::{CurrencyUnit, Pay, Setting, TokenFormat, Value, World, chat, json, model};

#[tokio::test]
async fn members_in_any_order_with_a_memo_or_without_its_proofs_of_equality_pay() {
    let world = World::start().await;
    for form in [turned, with_memo, without_dleq] {
        let plain = world.sats(100).await;
        let ecash = edited(&plain, form);
        assert_ne!(ecash, plain);
        let answer = world.chat(Pay::XCashu(&ecash), &chat("demo")).await.expect(200);
        assert_eq!(world.worth(answer.change().expect("change")).await, 88);
    }
    for form in [old_with_memo, old_without_dleq] {
        let plain = world.faucet.cashu(100, CurrencyUnit::Sat, TokenFormat::A).await.unwrap();
        let ecash = old_edited(&plain, form);
        assert_ne!(ecash, plain);
        let answer = world.chat(Pay::XCashu(&ecash), &chat("demo")).await.expect(200);
        assert_eq!(world.worth(answer.change().expect("change")).await, 88);
    }
}

#[tokio::test]
async fn keysets_go_by_their_short_ids_and_change_carries_no_proof_of_equality() {
    let world = World::start().await;
    let paid = world.sats(100).await;
    assert!(ids(&paid).iter().all(|id| id.len() == SHORT_ID_BYTES && id[0] == 1), "as they came");
    let answer = world.chat(Pay::XCashu(&paid), &chat("demo")).await.expect(200);
    let change = answer.change().expect("change");
    assert_eq!(without_dleq(read(change)), read(change));
    assert_ne!(without_dleq(read(&paid)), read(&paid), "as ecash of a wallet does");
}

#[tokio::test]
async fn ecash_of_60_kb_in_a_head_is_accepted() {
    let world = World::start().await;
    let ecash = world.faucet.cashu_in_pieces(&[4; 115], CurrencyUnit::Sat, TokenFormat::A);
    let ecash = ecash.await.unwrap();
    assert!((60_000..65_536).contains(&ecash.len()), "{} bytes", ecash.len());
    let answer = world.chat(Pay::XCashu(&ecash), &chat("demo")).await.expect(200);
    assert_eq!(world.worth(answer.change().expect("change")).await, 4 * 115 - 12);
}

#[tokio::test]
async fn a_model_is_sold_by_its_alias_and_asked_for_by_its_own_name() {
    let mut aliased = model("demo-by-another-name", &["sandbox"]);
    aliased["aliases"] = json!(["short"]);
    let more_models = vec![aliased];
    let world = World::with(Setting { more_models, ..Setting::default() }).await;
    let key = world.key(100).await;
    world.chat(&key, &chat("short")).await.expect(200);
    let asked: Value = serde_json::from_slice(&world.upstream.requests()[0].body).unwrap();
    assert_eq!(asked["model"], "demo-by-another-name");
}

fn read(ecash: &str) -> Cbor {
    let bytes = URL_SAFE_NO_PAD.decode(ecash.strip_prefix("cashuB").unwrap().trim_end_matches('='));
    ciborium::from_reader(&*bytes.unwrap()).unwrap()
}

fn edited(ecash: &str, edit: fn(Cbor) -> Cbor) -> String {
    let mut bytes = Vec::new();
    ciborium::into_writer(&edit(read(ecash)), &mut bytes).unwrap();
    format!("cashuB{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Every map from its last member to its first.
fn turned(value: Cbor) -> Cbor {
    match value {
        Cbor::Map(members) => {
            Cbor::Map(members.into_iter().rev().map(|(k, v)| (k, turned(v))).collect())
        }
        Cbor::Array(items) => Cbor::Array(items.into_iter().map(turned).collect()),
        other => other,
    }
}

fn with_memo(value: Cbor) -> Cbor {
    let mut members = value.into_map().unwrap();
    members.push((Cbor::from("d"), Cbor::from("thank you: no \"quotes\", ünicode")));
    Cbor::Map(members)
}

/// Without the `d` of each proof; that of the whole is its memo.
fn without_dleq(value: Cbor) -> Cbor {
    match value {
        Cbor::Map(members) => {
            let kept = members.into_iter().filter(|(k, v)| *k != Cbor::from("d") || !v.is_map());
            Cbor::Map(kept.map(|(k, v)| (k, without_dleq(v))).collect())
        }
        Cbor::Array(items) => Cbor::Array(items.into_iter().map(without_dleq).collect()),
        other => other,
    }
}

/// Every keyset id.
fn ids(ecash: &str) -> Vec<Vec<u8>> {
    let members = read(ecash).into_map().unwrap();
    let (_, entries) = members.into_iter().find(|(k, _)| *k == Cbor::from("t")).unwrap();
    let id = |entry: Cbor| {
        let members = entry.into_map().unwrap();
        let (_, id) = members.into_iter().find(|(k, _)| *k == Cbor::from("i")).unwrap();
        id.into_bytes().unwrap()
    };
    entries.into_array().unwrap().into_iter().map(id).collect()
}

fn old_edited(ecash: &str, edit: fn(&mut Value)) -> String {
    let bytes = URL_SAFE_NO_PAD.decode(ecash.strip_prefix("cashuA").unwrap().trim_end_matches('='));
    let mut value: Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
    edit(&mut value);
    format!("cashuA{}", URL_SAFE_NO_PAD.encode(value.to_string()))
}

fn old_with_memo(value: &mut Value) {
    value["memo"] = json!("thank you");
}

fn old_without_dleq(value: &mut Value) {
    for proof in value["token"][0]["proofs"].as_array_mut().unwrap() {
        proof.as_object_mut().unwrap().remove("dleq");
    }
}

const SHORT_ID_BYTES: usize = 8;
