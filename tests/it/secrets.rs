//! Nothing that is worth money or opens something is written down: not in a log at any level,
//! not in a file of the data directory. The seed is the one exception, in its one file.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cdk::nuts::Token;
use nutgate::crash::Step;
use nutgate_sandbox::upstream::DEFAULT_API_KEY;
use nutgate_sandbox::{Faucet, Mint, MintOptions};

use crate::support::{
    Key, Misbehaviour, Pay, Setting, TokenFormat, World, chat, json, model_of, streamed, within,
};

#[tokio::test]
async fn no_secret_is_written_anywhere_but_in_the_seed_file() {
    let mut world = World::with(Setting::config(json!({"log": "trace"}))).await;
    let mut secrets = Secrets::default();
    secrets.add("upstream key", DEFAULT_API_KEY.as_bytes());
    pay_in_every_way(&world, &mut secrets).await;
    be_refused_in_every_way(&world, &mut secrets).await;
    say_what_is_not_http(&world, &mut secrets).await;
    lose_the_mint(&mut world, &mut secrets).await;
    die_in_between(&mut world, &mut secrets).await;
    // While it runs, what it keeps is also in the files beside the database.
    check_nothing_leaked(&world, &secrets);
    world.gateway.sigterm();
    world.gateway.ended().await;
    check_nothing_leaked(&world, &secrets);
}

/// The search finds what is there, wherever it begins and whatever stands around it.
#[test]
fn a_secret_that_is_written_is_found() {
    let mut secrets = Secrets::default();
    secrets.add("key", b"sk-0123456789abcdef0123456789abcdef");
    secrets.add("seed", &[200; 64]);
    let mut file = b"\x00\xff so Bearer sk-0123456789abcdef0123456789abcdef: ".to_vec();
    assert_eq!(secrets.found_in(&file), ["key"]);
    file.extend([200; 64]);
    assert_eq!(secrets.found_in(&file), ["key", "seed"]);
    assert!(secrets.found_in(b"sk-0123456789ab and nothing more").is_empty());
}

async fn pay_in_every_way(world: &World, secrets: &mut Secrets) {
    for body in [chat("demo"), streamed("demo"), streamed(&model_of(Misbehaviour::NoUsage))] {
        let paid = secrets.ecash(world.sats(100).await);
        let answer = world.chat(Pay::XCashu(&paid), &body).await.expect(200);
        secrets.ecash(answer.change().unwrap().to_owned());
        let bearer = secrets.ecash(world.sats(100).await);
        world.chat(Pay::Bearer(&bearer), &body).await.expect(200);
        let refund = world.refund(Pay::Bearer(&bearer)).await.expect(200);
        secrets.ecash(refund.change().unwrap().to_owned());
    }
    let unit = crate::support::CurrencyUnit::Sat;
    let first = secrets.ecash(world.faucet.cashu(300, unit, TokenFormat::A).await.unwrap());
    // Also where a careless log would have it: in the query.
    let path = format!("/v1/balance/create?initial_balance_token={first}");
    let created = world.fetch(&path, Pay::Nothing).await.expect(200).json();
    let key = Key(created["api_key"].as_str().unwrap().to_owned());
    let more = secrets.ecash(world.sats(50).await);
    let path = format!("/v1/wallet/topup?cashu_token={more}");
    world.post(&path, Pay::from(&key), &json!({})).await.expect(200);
    world.chat(&key, &chat("demo")).await.expect(200);
    world.chat(Pay::Bearer(&Key::long_of(&first).0), &chat("demo")).await.expect(200);
    for sats in [3, 3, 64] {
        let asked = json!({"amount_sats": sats});
        let refund = world.post("/v1/balance/refund", Pay::from(&key), &asked).await.expect(200);
        secrets.ecash(refund.change().unwrap().to_owned());
    }
    world.fetch("/v1/balance/info", Pay::from(&key)).await.expect(200);
}

async fn be_refused_in_every_way(world: &World, secrets: &mut Secrets) {
    let key = world.key_of(&secrets.ecash(world.sats(500).await)).await;
    for misbehaviour in [
        Misbehaviour::Status401,
        Misbehaviour::Status429,
        Misbehaviour::Status500,
        Misbehaviour::Status400,
        Misbehaviour::Html,
        Misbehaviour::InvalidJson,
        Misbehaviour::Refuses,
        Misbehaviour::DropsMidStream,
        Misbehaviour::ErrorEvent,
    ] {
        for body in [chat(&model_of(misbehaviour)), streamed(&model_of(misbehaviour))] {
            drop(world.try_chat(&key, &body).await);
            let paid = secrets.ecash(world.sats(100).await);
            let answer = world.chat(Pay::XCashu(&paid), &body).await;
            secrets.ecash(answer.change().unwrap().to_owned());
        }
    }
    let spent = secrets.ecash(world.sats(100).await);
    world.worth(&spent).await;
    let small = secrets.ecash(world.sats(1).await);
    let foreign = Mint::start(MintOptions::default()).await.unwrap();
    let foreign = Faucet::new(&foreign.url()).unwrap();
    let unit = crate::support::CurrencyUnit::Sat;
    let foreign = foreign.cashu(100, unit, TokenFormat::B).await.unwrap();
    let foreign = secrets.ecash(foreign);
    let cut = secrets.ecash(world.sats(63).await);
    let cut = &cut[..cut.len() - 9];
    for ecash in [&*spent, &*small, &*foreign, cut] {
        for pay in [Pay::XCashu(ecash), Pay::Bearer(ecash)] {
            assert_ne!(world.chat(pay, &chat("demo")).await.status, 200);
            assert_ne!(world.refund(pay).await.status, 200);
        }
        let asked = json!({"initial_balance_token": ecash, "cashu_token": ecash});
        // Small as it is, the small one does for a balance.
        let status = if ecash == small { 200 } else { 400 };
        world.post("/v1/balance/create", Pay::Nothing, &asked).await.expect(status);
        world.post("/v1/balance/topup", Pay::from(&key), &asked).await.expect(400);
    }
    let unknown = secrets.key("sk-5ca1ab1e5ca1ab1e0ddba11f00dfeed5");
    world.chat(Pay::Bearer(&unknown), &chat("demo")).await.expect(401);
    world.refund(Pay::Bearer(&unknown)).await.expect(401);
    // Secrets where none is expected: a query, a model, a field.
    let lost = secrets.ecash(world.sats(1).await);
    world.fetch(&format!("/v1/nowhere?key={lost}"), Pay::Nothing).await.expect(404);
    world.chat(&key, &chat(&unknown)).await.expect(404);
    world.post("/v1/balance/refund", Pay::from(&key), &json!({"mint": lost})).await.expect(400);
}

/// What no hook of ours ever sees: the library that reads it must not log it either.
async fn say_what_is_not_http(world: &World, secrets: &mut Secrets) {
    let ecash = secrets.ecash(world.sats(2).await);
    let key = secrets.key("sk-badc0ffee0ddf00dbadc0ffee0ddf00d");
    let long = "x".repeat(200 << 10);
    for request in [
        format!("GET /{key} {ecash}\r\nx-cashu: {ecash}\r\n\r\n"),
        format!("POST /v1/chat/completions HTTP/1.1\r\nx cashu: {ecash}\r\n\r\n"),
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-cashu: {ecash}\x01\r\n\r\n"),
        format!("POST /v1/chat/completions HTTP/1.1\r\nx-cashu: {ecash}\r\nx: {long}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {key}\r\n\r\n{ecash}"),
        format!("{ecash}\r\n\r\n"),
    ] {
        let mut raw = world.raw().await;
        raw.send(request).await;
        // It is refused or hung up on, or waits for the rest of a body that we then hang up on.
        drop(tokio::time::timeout(crate::support::LOOK_AGAIN * 50, raw.try_head()).await);
    }
}

async fn lose_the_mint(world: &mut World, secrets: &mut Secrets) {
    let paid = secrets.ecash(world.sats(100).await);
    let undecided = secrets.ecash(world.sats(100).await);
    let swaps = world.mint.swap_count();
    world.mint.hold_swaps(true);
    let asked = world.chat_later(Pay::XCashu(&undecided), &chat("demo"));
    within("the mint has made the swap", world.mint.await_swaps(swaps + 1)).await;
    world.mint.stop().await;
    world.mint.hold_swaps(false);
    asked.answer().await.expect(500);
    world.chat(Pay::XCashu(&paid), &chat("demo")).await.expect(503);
    world.mint.start_again().await.unwrap();
    let claim = world.claim(&undecided).await.expect(200);
    secrets.ecash(claim.change().unwrap().to_owned());
}

async fn die_in_between(world: &mut World, secrets: &mut Secrets) {
    for step in [Step::RedeemRecorded, Step::SwapAnswered, Step::Streaming, Step::WithdrawBegun] {
        let paid = secrets.ecash(world.sats(100).await);
        world.gateway.set_env("NUTGATE_CRASH_AT", &step.name());
        world.gateway.restart().await;
        assert!(world.try_chat(Pay::XCashu(&paid), &chat("demo")).await.is_err());
        world.gateway.ended().await;
        world.gateway.clear_env("NUTGATE_CRASH_AT");
        world.gateway.restart().await;
        let claim = world.claim(&paid).await;
        if let Some(change) = claim.change() {
            secrets.ecash(change.to_owned());
        }
    }
}

/// Looks into everything the gateway has ever written, but the seed file.
fn check_nothing_leaked(world: &World, secrets: &Secrets) {
    let data_dir = world.gateway.data_dir();
    let seed_file = data_dir.join("seed");
    let mode = std::fs::metadata(&seed_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
    let mut secrets = secrets.clone();
    let seed = std::fs::read(&seed_file).unwrap();
    secrets.add("seed", &seed);
    secrets.add("seed in hex", hex::encode(&seed).as_bytes());

    let log = world.gateway.log();
    assert!(log.contains("nutgate::access"), "there is a log to look into");
    assert_eq!(secrets.found_in(log.as_bytes()), [""; 0], "in the log");
    let files = files_in(&data_dir);
    assert!(files.iter().any(|file| file.ends_with("nutgate.db")), "{files:?}");
    for file in files.iter().filter(|file| **file != seed_file) {
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(secrets.found_in(&bytes), [""; 0], "in {}", file.display());
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files
}

/// What must not be found, by the first bytes of everything that would give it away.
#[derive(Clone, Default)]
struct Secrets {
    marks: HashSet<[u8; MARK_BYTES]>,
    names: Vec<(String, [u8; MARK_BYTES])>,
}

impl Secrets {
    /// The whole of it, and what follows where only a part of it was cut off for a log.
    fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= MARK_BYTES, "{name} is too short to be recognised");
        for part in secret.windows(MARK_BYTES) {
            let mark = part.try_into().unwrap();
            if self.marks.insert(mark) {
                self.names.push((name.to_owned(), mark));
            }
        }
    }

    fn key(&mut self, key: &str) -> String {
        // The prefix is no secret, and a log may cut it off.
        self.add("key", key.strip_prefix("sk-").unwrap().as_bytes());
        key.to_owned()
    }

    /// A Cashu token: its text, the secrets of its proofs, and the key that it is.
    fn ecash(&mut self, ecash: String) -> String {
        // It begins with the mint and the unit, which every token shares.
        self.add("ecash", &ecash.as_bytes()[ecash.len() / 2..]);
        for secret in Token::from_str(&ecash).unwrap().token_secrets() {
            let text = secret.to_string();
            self.add("secret of a proof", text.as_bytes());
            if let Ok(bytes) = hex::decode(&text) {
                self.add("bytes of a proof's secret", &bytes);
            }
        }
        self.key(&Key::long_of(&ecash).0);
        ecash
    }

    /// The names of those that occur.
    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let found: HashSet<&[u8]> =
            bytes.windows(MARK_BYTES).filter(|part| self.marks.contains(*part)).collect();
        let names = self.names.iter().filter(|(_, mark)| found.contains(mark.as_slice()));
        names.map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// More than two strangers ever share, and less than what a key has.
const MARK_BYTES: usize = 16;
