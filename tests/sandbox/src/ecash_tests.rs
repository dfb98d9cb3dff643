//! The mint and the faucet do to each other what their users rely on.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use cdk::nuts::Token;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{CurrencyUnit, Faucet, Mint, MintOptions, Result, TokenFormat};

async fn mint_and_faucet(options: MintOptions) -> Result<(Mint, Arc<Faucet>)> {
    let mint = Mint::start(options).await?;
    let faucet = Arc::new(Faucet::new(&mint.url())?);
    Ok((mint, faucet))
}

fn redeem_on_the_side(faucet: &Arc<Faucet>, text: &str) -> JoinSet<Result<u64>> {
    let (faucet, text) = (faucet.clone(), text.to_owned());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { faucet.value_in_fresh_wallet(&text).await });
    tasks
}

#[tokio::test]
async fn ecash_of_both_units_and_formats_is_worth_what_it_says_less_the_fee() -> Result<()> {
    let units = vec![CurrencyUnit::Sat, CurrencyUnit::Msat];
    let options = MintOptions { units, input_fee_ppk: 1000, ..MintOptions::default() };
    let (_mint, faucet) = mint_and_faucet(options).await?;
    for unit in [CurrencyUnit::Sat, CurrencyUnit::Msat] {
        for (format, prefix) in [(TokenFormat::A, "cashuA"), (TokenFormat::B, "cashuB")] {
            let text = faucet.cashu(0b1101, unit.clone(), format).await?;
            assert!(text.starts_with(prefix));
            assert!(!faucet.is_spent(&text).await?);
            assert_eq!(faucet.value_in_fresh_wallet(&text).await?, 0b1101 - 3);
            assert!(faucet.is_spent(&text).await?);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proof_is_handed_out_twice_however_many_ask_at_once() -> Result<()> {
    let (_mint, faucet) = mint_and_faucet(MintOptions::default()).await?;
    let mut asking = JoinSet::new();
    for amount in 1..=40 {
        let faucet = faucet.clone();
        asking.spawn(async move { faucet.cashu(amount, CurrencyUnit::Sat, TokenFormat::B).await });
    }
    let (mut total, mut secrets) = (0, HashSet::new());
    while let Some(text) = asking.join_next().await {
        let cashu = Token::from_str(&text??)?;
        total += cashu.value()?.to_u64();
        for secret in cashu.token_secrets() {
            assert!(secrets.insert(secret.to_string()), "a proof was handed out twice");
        }
    }
    assert_eq!(total, (1..=40u64).sum::<u64>());
    Ok(())
}

#[tokio::test]
async fn a_stopped_mint_refuses_connections_and_comes_back_knowing_what_it_knew() -> Result<()> {
    let (mut mint, faucet) = mint_and_faucet(MintOptions::default()).await?;
    let spent = faucet.cashu(5, CurrencyUnit::Sat, TokenFormat::B).await?;
    let unspent = faucet.cashu(5, CurrencyUnit::Sat, TokenFormat::B).await?;
    faucet.value_in_fresh_wallet(&spent).await?;
    let address = mint.url().replace("http://", "");

    let mut idle = TcpStream::connect(&address).await?;
    mint.stop().await;
    let read = tokio::io::AsyncReadExt::read(&mut idle, &mut [0]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "the connection outlived the mint");
    assert!(TcpStream::connect(&address).await.is_err());
    assert!(faucet.is_spent(&spent).await.is_err());

    mint.start_again().await?;
    assert!(faucet.is_spent(&spent).await?);
    assert_eq!(faucet.value_in_fresh_wallet(&unspent).await?, 5);
    Ok(())
}

#[tokio::test]
async fn a_mint_with_a_directory_is_the_same_mint_when_it_is_started_anew() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("nutgate-sandbox-{}", std::process::id()));
    let options = MintOptions { dir: Some(dir.clone()), ..MintOptions::default() };
    let (mut mint, faucet) = mint_and_faucet(options.clone()).await?;
    let text = faucet.cashu(7, CurrencyUnit::Sat, TokenFormat::B).await?;
    mint.stop().await;
    let port = mint.url().rsplit(':').next().unwrap_or_default().parse()?;
    drop(mint);

    let _again = Mint::start(MintOptions { port, ..options }).await?;
    assert_eq!(faucet.value_in_fresh_wallet(&text).await?, 7);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

#[tokio::test]
async fn a_swap_whose_answer_is_lost_has_still_spent_its_inputs() -> Result<()> {
    let (mint, faucet) = mint_and_faucet(MintOptions::default()).await?;
    let text = faucet.cashu(5, CurrencyUnit::Sat, TokenFormat::B).await?;
    mint.lose_swap_answers(true);
    assert!(faucet.value_in_fresh_wallet(&text).await.is_err());
    assert!(faucet.is_spent(&text).await?);
    assert!(mint.swap_count() > 0);
    Ok(())
}

#[tokio::test]
async fn a_held_swap_is_executed_at_once_and_answered_when_it_is_released() -> Result<()> {
    let (mint, faucet) = mint_and_faucet(MintOptions::default()).await?;
    let text = faucet.cashu(5, CurrencyUnit::Sat, TokenFormat::B).await?;
    mint.hold_swaps(true);
    let mut value = redeem_on_the_side(&faucet, &text);
    mint.await_swaps(1).await;
    assert!(faucet.is_spent(&text).await?);
    assert!(value.try_join_next().is_none());
    mint.hold_swaps(false);
    assert_eq!(value.join_next().await.expect("it was spawned")??, 5);
    Ok(())
}

#[tokio::test]
async fn stopping_the_mint_drops_a_swap_that_is_held() -> Result<()> {
    let (mut mint, faucet) = mint_and_faucet(MintOptions::default()).await?;
    let text = faucet.cashu(5, CurrencyUnit::Sat, TokenFormat::B).await?;
    mint.hold_swaps(true);
    let mut value = redeem_on_the_side(&faucet, &text);
    mint.await_swaps(1).await;
    mint.stop().await;
    assert!(value.join_next().await.expect("it was spawned")?.is_err());
    Ok(())
}

#[tokio::test]
async fn ecash_of_a_rotated_keyset_can_still_be_redeemed() -> Result<()> {
    let (mint, faucet) = mint_and_faucet(MintOptions::default()).await?;
    let old = faucet.cashu(5, CurrencyUnit::Sat, TokenFormat::B).await?;
    mint.rotate_keyset(CurrencyUnit::Sat).await?;
    faucet.forget_stock().await;
    let new = faucet.cashu(5, CurrencyUnit::Sat, TokenFormat::B).await?;
    assert_eq!(faucet.value_in_fresh_wallet(&old).await?, 5);
    assert_eq!(faucet.value_in_fresh_wallet(&new).await?, 5);
    Ok(())
}
