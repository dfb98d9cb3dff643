//! What tokens are refused without a mint being asked, and what never reaches the disk.

use std::net::TcpListener;
use std::str::FromStr;
use std::time::Duration;

use cdk::mint_url::MintUrl;
use cdk::nuts::{CurrencyUnit, Token, TokenV3, TokenV4};
use nutgate_sandbox::{Faucet, Mint, MintOptions, TokenFormat};

use super::*;
use crate::ids::AccountId;
use crate::store::Store;
use crate::store::place::{Over, Place, over_both};

/// The same proofs written the other way.
pub(crate) fn as_v3(text: &str) -> String {
    Token::from_str(text).unwrap().to_v3_string()
}

const TIMEOUT: Duration = Duration::from_secs(20);

struct Bench {
    _mint: Mint,
    faucet: Faucet,
    dir: tempfile::TempDir,
    place: Place,
    wallet: Wallet,
}

async fn bench(over: Over, units: &[&str]) -> Bench {
    let mint = Mint::start(MintOptions::default()).await.unwrap();
    let faucet = Faucet::new(&mint.url()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let place = Place::fresh(over).await;
    let db = place.open(&Store::open(&dir.path().join("wallet.db"), "").unwrap());
    let units = units.iter().map(|unit| (*unit).to_owned()).collect();
    let mints = [config::Mint { url: mint.url(), units }];
    let wallet = Wallet::open(db, &dir.path().join("seed"), &mints, TIMEOUT).await.unwrap();
    Bench { _mint: mint, faucet, dir, place, wallet }
}

impl Bench {
    async fn redeem(&self, text: &str) -> Result<Redemption, RedeemRefused> {
        self.wallet.redeem(text, AccountId::stored("somebody"), Msat::ZERO, &|| {}).await
    }

    /// Every file but the seed, or every table's rows as text.
    async fn everything_kept(&self) -> Vec<(String, Vec<u8>)> {
        if let Place::Postgres { server, url } = &self.place {
            let sql = "SELECT query_to_xml('SELECT * FROM ' || tablename, true, true, '')
                       FROM pg_tables WHERE schemaname = 'public'";
            return vec![(url.clone(), server.sql(url, sql).await.unwrap().into_bytes())];
        }
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|file| file.unwrap().path());
        let kept = files.filter(|path| path.file_name().is_some_and(|name| name != "seed"));
        kept.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
    }

    async fn token(&self, amount: u64) -> TokenV4 {
        let text = self.faucet.cashu(amount, CurrencyUnit::Sat, TokenFormat::B).await.unwrap();
        TokenV4::from_str(&text).unwrap()
    }
}

async fn a_mint_that_configuration_does_not_name_is_never_connected_to(over: Over) {
    let bench = bench(over, &["sat"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut token = bench.token(4).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    token.mint_url = MintUrl::from_str(&url).unwrap();
    for text in [token.to_string(), as_v3(&token.to_string())] {
        assert_eq!(bench.redeem(&text).await, Err(RedeemRefused::MintNotAccepted));
    }
    let accepted = listener.accept().map(|_| ()).unwrap_err();
    assert_eq!(accepted.kind(), std::io::ErrorKind::WouldBlock);
}

async fn tokens_that_cannot_be_ours_are_refused_before_the_mint_is_asked(over: Over) {
    let bench = bench(over, &["msat"]).await;
    let token = bench.token(5).await;
    assert_eq!(bench.redeem(&token.to_string()).await, Err(RedeemRefused::UnitNotAccepted));

    let invalid = |outcome| matches!(outcome, Err(RedeemRefused::Invalid(_)));
    for text in ["", "cashuB", "cashuA!!!", "cashuBbm90IGNib3I", "sk-123"] {
        assert!(invalid(bench.redeem(text).await), "{text}");
    }
    assert!(invalid(bench.redeem(&"cashuB".repeat(20_000)).await));

    let mut twice = token.clone();
    twice.unit = CurrencyUnit::Msat;
    let proofs = twice.token[0].proofs.clone();
    twice.token[0].proofs.extend(proofs);
    assert!(invalid(bench.redeem(&twice.to_string()).await));

    let mut nothing = token.clone();
    nothing.unit = CurrencyUnit::Msat;
    nothing.token.clear();
    assert_eq!(bench.redeem(&nothing.to_string()).await, Err(RedeemRefused::ZeroValue));

    let mut other_unit = token.clone();
    other_unit.unit = CurrencyUnit::Msat;
    assert!(invalid(bench.redeem(&other_unit.to_string()).await), "the keyset counts in sats");

    let mut locked = token;
    locked.unit = CurrencyUnit::Msat;
    let secret = r#"["P2PK",{"nonce":"a","data":"02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"}]"#;
    locked.token[0].proofs[0].secret = cdk::secret::Secret::new(secret);
    assert!(invalid(bench.redeem(&locked.to_string()).await));
}

async fn a_v3_token_without_a_unit_counts_in_sats(over: Over) {
    let bench = bench(over, &["sat"]).await;
    let text = bench.faucet.cashu(6, CurrencyUnit::Sat, TokenFormat::A).await.unwrap();
    let mut token = TokenV3::from_str(&text).unwrap();
    token.unit = None;
    let redeemed = bench.redeem(&token.to_string()).await.unwrap();
    assert_eq!(redeemed.amount.get(), 6_000);
}

async fn a_forged_proof_takes_nothing_and_says_why(over: Over) {
    let bench = bench(over, &["sat"]).await;
    let (mut forged, other) = (bench.token(4).await, bench.token(4).await);
    forged.token[0].proofs[0].c = other.token[0].proofs[0].c;
    assert!(matches!(bench.redeem(&forged.to_string()).await, Err(RedeemRefused::Failed(_))));
    assert_eq!(bench.wallet.holdings().await.unwrap(), []);
}

async fn no_secret_is_written_but_the_seed(over: Over) {
    let bench = bench(over, &["sat"]).await;
    let text = bench.token(1000).await.to_string();
    let redeemed = bench.redeem(&text).await.unwrap();
    bench.wallet.credited(&redeemed.id).await.unwrap();
    let mint = bench.wallet.accepted()[0].url.clone();
    let id = crate::ids::WithdrawalId::nth(&redeemed.account, 0);
    let issue =
        Issue { id, account: redeemed.account, mint, unit: "sat".into(), amount: redeemed.amount };
    let issued = bench.wallet.issue(&issue, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(bench.wallet.holdings().await.unwrap(), []);

    let mut secrets = vec![text.clone(), issued.reveal().to_owned()];
    for token in [&text, issued.reveal()] {
        let token = Token::from_str(token).unwrap();
        secrets.extend(token.token_secrets().into_iter().map(ToString::to_string));
    }
    let seed = std::fs::read(bench.dir.path().join("seed")).unwrap();
    let mut needles: Vec<Vec<u8>> = vec![seed.clone(), hex::encode(&seed).into_bytes()];
    for secret in &secrets {
        needles.push(secret.clone().into_bytes());
        needles.extend(hex::decode(secret));
    }
    // As PostgreSQL writes bytes.
    needles.extend(needles.clone().into_iter().map(|needle| hex::encode(needle).into_bytes()));
    let kept = bench.everything_kept().await;
    assert!(kept.iter().any(|(_, bytes)| holds(bytes, redeemed.id.as_str().as_bytes())));
    for (place, bytes) in kept {
        for needle in &needles {
            assert!(!holds(&bytes, needle), "a secret is in {place}");
        }
    }
    assert!(!format!("{issued:?} {:?}", bench.wallet).contains("cashuB"));
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

over_both! {
    a_mint_that_configuration_does_not_name_is_never_connected_to
    tokens_that_cannot_be_ours_are_refused_before_the_mint_is_asked
    a_v3_token_without_a_unit_counts_in_sats
    a_forged_proof_takes_nothing_and_says_why
    no_secret_is_written_but_the_seed
}
