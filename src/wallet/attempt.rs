//! What became of a swap: the one question both redemptions and exchanges must answer after
//! a lost answer or a crash, and the only place that turns signatures into proofs.
//!
//! | outputs (NUT-09) | inputs (NUT-07) | conclusion |
//! |---|---|---|
//! | signed | spent | it happened: the proofs are ours |
//! | signed | not spent | our counters were used in another life of this database: not this swap |
//! | not signed | unspent | it did not happen, and may be asked for again |
//! | not signed | pending | the mint is at it |
//! | not signed | spent | somebody else spent them; asked twice, as it may just have happened |

use std::sync::Arc;

use cdk::dhke::unblind_message;
use cdk::nuts::{BlindSignature, BlindedMessage, KeySet};

use super::mint::{Mint, MintError, Spending};
use super::rows::{Attempt, ProofRow};
use super::seed::{Output, Seed};

pub(super) enum Fate {
    Signed(Vec<BlindSignature>),
    Unspent {
        /// The recorded outputs bear older signatures and cannot be used.
        outputs_used: bool,
    },
    Pending,
    SpentElsewhere,
    Unknown(MintError),
}

/// Looks at the mint; changes nothing.
pub(super) async fn look(mint: &Mint, seed: &Seed, attempt: &Attempt) -> Fate {
    let Ok(outputs) = seed.outputs(attempt.keyset, attempt.counter_start, &attempt.outputs) else {
        return Fate::Unknown(MintError::Ambiguous);
    };
    match looked(mint, attempt, &blinded(&outputs)).await {
        Ok(fate) => fate,
        Err(error) => Fate::Unknown(error),
    }
}

async fn looked(
    mint: &Mint,
    attempt: &Attempt,
    outputs: &[BlindedMessage],
) -> Result<Fate, MintError> {
    let before = mint.restore(outputs.to_vec()).await?;
    let spending = mint.spending(attempt.ys.clone()).await?;
    Ok(match (before, spending) {
        (Some(signatures), Spending::Spent) => Fate::Signed(signatures),
        (signed, Spending::Unspent) => Fate::Unspent { outputs_used: signed.is_some() },
        (_, Spending::Pending) => Fate::Pending,
        (None, Spending::Spent) => match mint.restore(outputs.to_vec()).await? {
            Some(signatures) => Fate::Signed(signatures),
            None => Fate::SpentElsewhere,
        },
    })
}

pub(super) fn blinded(outputs: &[Output]) -> Vec<BlindedMessage> {
    outputs.iter().map(|output| output.blinded.clone()).collect()
}

/// Checks that the mint signed exactly what we asked for, with the keys it publishes (its
/// proof of that, NUT-12, wherever it gives one), and removes the blinding.
pub(super) fn accept(
    outputs: &[Output],
    signatures: &[BlindSignature],
    keyset: &Arc<KeySet>,
) -> Result<Vec<ProofRow>, &'static str> {
    if outputs.len() != signatures.len() {
        return Err("the mint signed another number of outputs");
    }
    let unblinded = outputs.iter().zip(signatures).map(|(output, signature)| {
        if signature.amount.to_u64() != output.amount {
            return Err("the mint signed another amount");
        }
        unblinded(output, signature, keyset)
    });
    unblinded.collect()
}

/// As [`accept`], of blank outputs (NUT-08): the mint chose the amounts, and signed the first of
/// them, as many as it needed.
pub(super) fn accept_change(
    blanks: &[Output],
    signatures: &[BlindSignature],
    keyset: &Arc<KeySet>,
) -> Result<Vec<ProofRow>, &'static str> {
    if signatures.len() > blanks.len() {
        return Err("the mint signed more outputs than there are");
    }
    let each = blanks.iter().zip(signatures);
    each.map(|(blank, signature)| unblinded(blank, signature, keyset)).collect()
}

fn unblinded(
    output: &Output,
    signature: &BlindSignature,
    keyset: &Arc<KeySet>,
) -> Result<ProofRow, &'static str> {
    if signature.keyset_id != keyset.id {
        return Err("the mint signed in another keyset");
    }
    let key = keyset.keys.amount_key(signature.amount).ok_or("a key is missing")?;
    if signature.dleq.is_some() {
        let valid = signature.verify_dleq(key, output.blinded.blinded_secret);
        valid.map_err(|_| "a signature is not by the published key")?;
    }
    let c = unblind_message(&signature.c, &output.blinding, &key)
        .map_err(|_| "a signature is not a point")?;
    let amount = signature.amount.to_u64();
    Ok(ProofRow { keyset: keyset.id, counter: output.counter, amount, c })
}

/// The largest power of two that this keyset signs with every smaller one.
pub(super) fn largest_part(keyset: &KeySet) -> Option<u64> {
    let signs = |part: &u64| keyset.keys.amount_key((*part).into()).is_some();
    (0..PARTS_BITS).map(|bit| 1_u64 << bit).take_while(signs).last()
}

/// 2^52 and below: no amount of ours is larger.
const PARTS_BITS: u32 = 53;
