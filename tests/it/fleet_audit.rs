//! Whatever is changed behind a fleet's back, in Redis or in PostgreSQL, the audit finds it; and
//! it finds nothing once that is put right.

use sha2::{Digest, Sha256};

use crate::support::{Fleet, Key, Pay, Setting, World, chat, json};

#[tokio::test]
async fn every_change_in_redis_is_found() {
    let (world, key) = lived_in().await;
    let id = hex::encode(Sha256::digest(&key.0));
    let shard = &id[..2];
    let account = format!("ng:{{{shard}}}:a:{id}");
    let withdrawals = format!("ng:{{{shard}}}:w:{id}");
    let redis = &world.servers().redis;
    let fields = redis.cli(&["HKEYS", &account]).await.unwrap();
    let deposit = fields.lines().find(|field| field.len() == 64).unwrap();
    let withdrawal = redis.cli(&["HKEYS", &withdrawals]).await.unwrap();
    let row = redis.cli(&["HGET", &withdrawals, &withdrawal]).await.unwrap();
    let add = |field: &str, amount: &str| format!("HINCRBY {account} {field} {amount}");
    let steps = |steps: &[(&str, &str)]| -> Vec<String> {
        steps.iter().map(|(field, amount)| add(field, amount)).collect()
    };
    let changes = [
        (steps(&[("av", "1")]), steps(&[("av", "-1")])),
        (steps(&[("sp", "-7")]), steps(&[("sp", "7")])),
        (steps(&[("de", "9"), ("av", "9")]), steps(&[("de", "-9"), ("av", "-9")])),
        (steps(&[("rf", "5"), ("av", "-5")]), steps(&[("rf", "-5"), ("av", "5")])),
        (steps(&[("re", "5"), ("av", "-5")]), steps(&[("re", "-5"), ("av", "5")])),
        (steps(&[("op", "1")]), steps(&[("op", "-1")])),
        (steps(&[("kh", "1")]), steps(&[("kh", "-1")])),
        (vec![add(deposit, "1")], vec![add(deposit, "-1")]),
        (
            vec![format!("HDEL {account} {deposit}")],
            vec![format!("HSET {account} {deposit} 50000")],
        ),
        (
            vec![format!("HDEL {withdrawals} {withdrawal}")],
            vec![format!("HSET {withdrawals} {withdrawal} \"{row}\"")],
        ),
        (vec![format!("RENAME {account} hidden")], vec![format!("RENAME hidden {account}")]),
    ];
    for (change, back) in changes {
        for command in &change {
            run(&world, command).await;
        }
        found(&world, &change.join("; ")).await;
        for command in &back {
            run(&world, command).await;
        }
        world.check_balanced().await;
    }
}

#[tokio::test]
async fn every_change_in_postgresql_is_found() {
    let (world, _) = lived_in().await;
    let servers = world.servers();
    for (change, back) in [
        (
            "UPDATE redemptions SET amount_msat = amount_msat + 1000",
            "UPDATE redemptions SET amount_msat = amount_msat - 1000",
        ),
        ("UPDATE redemptions SET id = id || 'x'", "UPDATE redemptions SET id = left(id, 64)"),
        ("UPDATE outgoing SET id = id || 'x'", "UPDATE outgoing SET id = left(id, 64)"),
        (
            "UPDATE outgoing SET amount_msat = amount_msat + 1",
            "UPDATE outgoing SET amount_msat = amount_msat - 1",
        ),
        (
            "UPDATE proofs SET amount = amount * 2 WHERE holder IS NULL",
            "UPDATE proofs SET amount = amount / 2 WHERE holder IS NULL",
        ),
    ] {
        servers.postgres.sql(&servers.database, change).await.unwrap();
        found(&world, change).await;
        servers.postgres.sql(&servers.database, back).await.unwrap();
        world.check_balanced().await;
    }
}

/// A fleet with a key that was topped up, used and partly refunded.
async fn lived_in() -> (World, Key) {
    let world = World::with(Setting { fleet: Some(Fleet::of(1)), ..Setting::default() }).await;
    let key = world.key(50).await;
    world.chat(&key, &chat("demo")).await.expect(200);
    world.settled(&key).await;
    let some = json!({"amount_sats": 10});
    world.post("/v1/balance/refund", Pay::from(&key), &some).await.expect(200);
    world.check_balanced().await;
    (world, key)
}

/// A command without quotes but around its last word.
async fn run(world: &World, command: &str) {
    let (plain, quoted) = command.split_once(" \"").unwrap_or((command, ""));
    let mut words: Vec<&str> = plain.split(' ').collect();
    words.extend(quoted.strip_suffix('"'));
    world.servers().redis.cli(&words).await.unwrap();
}

async fn found(world: &World, change: &str) {
    let (code, said) = world.gateway.run("audit").await;
    assert_eq!(code, Some(1), "{change}: {said}");
}
