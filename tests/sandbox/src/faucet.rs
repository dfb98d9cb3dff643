//! Fresh ecash for whoever asks, and an honest opinion on ecash that came back.
//!
//! Proofs are minted in bulk and handed out by denomination, so that a `CashuToken` costs no round
//! trip to the mint as long as the stock lasts. No proof is ever handed out twice.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cdk::Amount;
use cdk::amount::SplitTarget;
use cdk::dhke::hash_to_curve;
use cdk::mint_url::MintUrl;
use cdk::nuts::{CheckStateRequest, CurrencyUnit, MintQuoteState, PaymentMethod, Proof, Proofs};
use cdk::nuts::{SecretKey, State, Token};
use cdk::wallet::{HttpClient, MintConnector, ReceiveOptions, Wallet, WalletBuilder};
use tokio::sync::Mutex;

use crate::{Error, Result};

/// How ecash is written: `cashuA…` (V3, JSON) or `cashuB…` (V4, CBOR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFormat {
    A,
    B,
}

impl FromStr for TokenFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "A" | "a" => Ok(Self::A),
            "B" | "b" => Ok(Self::B),
            _ => Err(format!("the format is A or B, not {text:?}").into()),
        }
    }
}

/// Safe to use from many tasks at once; they take turns only where proofs are handed out.
pub struct Faucet {
    mint_url: MintUrl,
    stocks: Mutex<HashMap<CurrencyUnit, Stock>>,
}

impl Faucet {
    /// Asks nothing of the mint yet.
    pub fn new(mint_url: &str) -> Result<Self> {
        Ok(Self { mint_url: mint_url.parse()?, stocks: Mutex::default() })
    }

    /// A fresh `CashuToken` of exactly this face value, in the fewest proofs, with DLEQ.
    pub async fn cashu(
        &self,
        amount: u64,
        unit: CurrencyUnit,
        format: TokenFormat,
    ) -> Result<String> {
        let pieces: Vec<u64> =
            (0..u64::BITS).map(|bit| amount & (1 << bit)).filter(|piece| *piece > 0).collect();
        self.cashu_in_pieces(&pieces, unit, format).await
    }

    /// A fresh `CashuToken` made of proofs of exactly these amounts, each a power of two.
    pub async fn cashu_in_pieces(
        &self,
        pieces: &[u64],
        unit: CurrencyUnit,
        format: TokenFormat,
    ) -> Result<String> {
        if pieces.is_empty() || !pieces.iter().all(|piece| piece.is_power_of_two()) {
            return Err("ecash is made of one or more powers of two".into());
        }
        let proofs = self.take(pieces, &unit).await?;
        let cashu = Token::new(self.mint_url.clone(), proofs, None, unit);
        match format {
            TokenFormat::A => Ok(cashu.to_v3_string()),
            TokenFormat::B => Ok(cashu.to_string()),
        }
    }

    /// Forgets what was minted ahead, so that what comes next is of the active keyset.
    pub async fn forget_stock(&self) {
        self.stocks.lock().await.clear();
    }

    /// Redeems the ecash into a brand new wallet and says what it was worth there, in its own
    /// unit and after the mint's fee.
    pub async fn value_in_fresh_wallet(&self, text: &str) -> Result<u64> {
        let cashu = Token::from_str(text)?;
        let wallet = self.wallet(cashu.unit().unwrap_or(CurrencyUnit::Sat)).await?;
        let options = ReceiveOptions {
            // Without it the wallet swaps its own proofs about to improve their denominations.
            amount_split_target: SplitTarget::Values(Vec::new()),
            ..ReceiveOptions::default()
        };
        let received = wallet.receive(text, options).await?;
        Ok(received.to_u64())
    }

    /// Asks the mint (NUT-07) whether the ecash is spent. Half spent is an error, so that neither
    /// answer can be wrong.
    pub async fn is_spent(&self, text: &str) -> Result<bool> {
        let ys = Token::from_str(text)?
            .token_secrets()
            .into_iter()
            .map(|secret| hash_to_curve(secret.as_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        let client = HttpClient::new(self.mint_url.clone(), None);
        let answer = client.post_check_state(CheckStateRequest { ys }).await?;
        let spent = answer.states.iter().filter(|proof| proof.state == State::Spent).count();
        match spent {
            0 => Ok(false),
            all if all == answer.states.len() => Ok(true),
            some => Err(format!("{some} of {} proofs are spent", answer.states.len()).into()),
        }
    }

    async fn take(&self, pieces: &[u64], unit: &CurrencyUnit) -> Result<Proofs> {
        // Held across calls to the mint: whoever waits here would only have minted the same.
        let mut stocks = self.stocks.lock().await;
        if !stocks.contains_key(unit) {
            let wallet = self.wallet(unit.clone()).await?;
            stocks.insert(unit.clone(), Stock { wallet, proofs: BTreeMap::new() });
        }
        let stock = stocks.get_mut(unit).ok_or("the stock was put there above")?;
        stock.take(pieces).await
    }

    async fn wallet(&self, unit: CurrencyUnit) -> Result<Wallet> {
        let mut seed = [0; 64];
        seed[..32].copy_from_slice(&SecretKey::generate().to_secret_bytes());
        seed[32..].copy_from_slice(&SecretKey::generate().to_secret_bytes());
        let wallet = WalletBuilder::new()
            .mint_url(self.mint_url.clone())
            .unit(unit)
            .localstore(Arc::new(cdk_sqlite::wallet::memory::empty().await?))
            .seed(seed)
            .use_http_subscription()
            .without_rate_limiting()
            .build()?;
        Ok(wallet)
    }
}

/// Proofs of one unit, by denomination.
struct Stock {
    wallet: Wallet,
    proofs: BTreeMap<u64, Vec<Proof>>,
}

impl Stock {
    /// Hands out one proof per piece, or none at all.
    async fn take(&mut self, pieces: &[u64]) -> Result<Proofs> {
        let mut wanted: BTreeMap<u64, usize> = BTreeMap::new();
        for piece in pieces {
            *wanted.entry(*piece).or_default() += 1;
        }
        if wanted.iter().any(|(piece, count)| self.held(*piece) < *count) {
            self.fill(&wanted).await?;
        }
        let mut taken = Vec::with_capacity(pieces.len());
        for (piece, count) in wanted {
            let held = self.proofs.entry(piece).or_default();
            taken.extend(held.drain(held.len().saturating_sub(count)..));
        }
        Ok(taken)
    }

    fn held(&self, piece: u64) -> usize {
        self.proofs.get(&piece).map_or(0, Vec::len)
    }

    /// Has issued what is wanted and missing, and a reserve of every usual denomination beside it.
    async fn fill(&mut self, wanted: &BTreeMap<u64, usize>) -> Result<()> {
        let largest = wanted.keys().last().copied().unwrap_or(0).max(USUAL_MAX);
        let mut missing = Vec::new();
        for bit in 0..=largest.ilog2() {
            let piece = 1 << bit;
            let goal = wanted.get(&piece).copied().unwrap_or(0) + RESERVE;
            let count = goal.saturating_sub(self.held(piece));
            missing.extend(std::iter::repeat_n(Amount::from(piece), count));
        }
        for pieces in missing.chunks(OUTPUTS_MAX) {
            for proof in issue(&self.wallet, pieces).await? {
                self.proofs.entry(proof.amount.to_u64()).or_default().push(proof);
            }
        }
        Ok(())
    }
}

async fn issue(wallet: &Wallet, pieces: &[Amount]) -> Result<Proofs> {
    let total = Amount::try_sum(pieces.iter().copied())?;
    let quote = wallet.mint_quote(PaymentMethod::BOLT11, Some(total), None, None).await?;
    let paid = async {
        while wallet.check_mint_quote_status(&quote.id).await?.state != MintQuoteState::Paid {
            tokio::time::sleep(PAID_POLL).await;
        }
        Ok::<_, Error>(())
    };
    tokio::time::timeout(PAID_WITHIN, paid).await.map_err(|_| "the quote was never paid")??;
    Ok(wallet.mint(&quote.id, SplitTarget::Values(pieces.to_vec()), None).await?)
}

/// Proofs of each denomination minted ahead.
const RESERVE: usize = 8;
/// Up to here denominations are minted ahead even if nobody has asked for one yet.
const USUAL_MAX: u64 = 1 << 10;
/// What the mint accepts in one request is 1000; smaller requests answer sooner.
const OUTPUTS_MAX: usize = 500;
const PAID_POLL: Duration = Duration::from_millis(5);
const PAID_WITHIN: Duration = Duration::from_secs(20);
