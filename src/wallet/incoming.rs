//! A token that somebody showed us: parsed and checked, nothing taken, nothing asked.
//!
//! Only the mints that configuration names are ever connected to: a token of another one ends
//! here.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use cdk::mint_url::MintUrl;
use cdk::nuts::nut10::Secret as Nut10Secret;
use cdk::nuts::{CurrencyUnit, Id, KeySetInfo, Proof, Proofs, PublicKey, Token};

use super::mint::{Mint, MintError, Unit, normalise};
use super::{RedeemRefused, WalletError};

/// A well-formed token of an accepted mint and unit. Never printed: it holds secrets.
pub(super) struct Incoming {
    pub(super) mint: Arc<Mint>,
    pub(super) unit: Unit,
    /// In the token's unit, more than zero.
    pub(super) value: u64,
    cashu_token: Token,
}

/// Its proofs under their full keyset ids, and what the mint takes for swapping them.
pub(super) struct Inputs {
    pub(super) proofs: Proofs,
    pub(super) ys: Vec<PublicKey>,
    pub(super) fee: u64,
}

impl Incoming {
    pub(super) fn parse(text: &str, mints: &[Arc<Mint>]) -> Result<Self, RedeemRefused> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(invalid("longer than 64 KiB"));
        }
        let cashu_token = Token::from_str(text).map_err(|_| invalid("it cannot be decoded"))?;
        let secrets = cashu_token.token_secrets();
        if secrets.len() > TOKEN_PROOFS_MAX {
            return Err(invalid("more than 1000 proofs"));
        }
        let url = mint_url(&cashu_token)?;
        let known = mints.iter().find(|mint| Some(&mint.url) == url.as_ref());
        let mint = known.ok_or(RedeemRefused::MintNotAccepted)?.clone();
        let currency = cashu_token.unit().unwrap_or(CurrencyUnit::Sat);
        let unit = mint.unit(&currency).ok_or(RedeemRefused::UnitNotAccepted)?.clone();
        if secrets.into_iter().any(|secret| Nut10Secret::try_from(secret).is_ok()) {
            return Err(invalid("its proofs are locked and we hold no key to them"));
        }
        let value = cashu_token.value().map_err(|_| invalid("a proof occurs twice"))?.to_u64();
        if value == 0 {
            return Err(RedeemRefused::ZeroValue);
        }
        unit.msat(value).ok_or_else(|| invalid("worth more than can be counted"))?;
        Ok(Self { mint, unit, value, cashu_token })
    }

    /// Resolves keysets (the mint is asked for them if they are new) and computes the fee.
    pub(super) async fn inputs(&self) -> Result<Inputs, RedeemRefused> {
        let infos = self
            .mint
            .keysets(|infos| self.under(infos).is_some())
            .await
            .map_err(|error| unfetched(&error))?;
        let (proofs, ppk) = self.under(&infos).ok_or_else(|| invalid("unknown keyset"))?;
        let ys: Result<Vec<_>, _> = proofs.iter().map(Proof::y).collect();
        let ys = ys.map_err(|_| invalid("a secret is not usable"))?;
        Ok(Inputs { proofs, ys, fee: ppk.div_ceil(PPK) })
    }

    /// The proofs and the sum of their fees in parts per thousand, if these keysets are all of
    /// the token's, and of its unit.
    fn under(&self, infos: &[KeySetInfo]) -> Option<(Proofs, u64)> {
        let proofs = self.cashu_token.proofs(infos).ok()?;
        let fees: HashMap<Id, u64> = infos
            .iter()
            .filter(|info| info.unit.to_string() == self.unit.name)
            .map(|info| (info.id, info.input_fee_ppk))
            .collect();
        let each: Option<Vec<u64>> =
            proofs.iter().map(|proof| fees.get(&proof.keyset_id).copied()).collect();
        let ppk = each?.into_iter().fold(0_u64, u64::saturating_add);
        Some((proofs, ppk))
    }
}

/// The one mint of a token; V3 may name it several times.
fn mint_url(cashu_token: &Token) -> Result<Option<MintUrl>, RedeemRefused> {
    let urls: Vec<&MintUrl> = match cashu_token {
        Token::TokenV3(v3) => v3.token.iter().map(|part| &part.mint).collect(),
        Token::TokenV4(v4) => vec![&v4.mint_url],
    };
    let mut urls = urls.into_iter().map(|url| normalise(&url.to_string()));
    let first = urls.next().ok_or_else(|| invalid("it has no proofs"))?;
    if urls.any(|url| url != first) {
        return Err(invalid("it has proofs of more than one mint"));
    }
    Ok(first)
}

fn invalid(why: &str) -> RedeemRefused {
    RedeemRefused::Invalid(why.to_owned())
}

/// The keysets could not be had: nothing was sent that could have taken the token.
pub(super) fn unfetched(error: &MintError) -> RedeemRefused {
    match error {
        MintError::RateLimited => RedeemRefused::MintRateLimited,
        MintError::Refused(why) => RedeemRefused::Failed((*why).to_owned()),
        _ => RedeemRefused::MintUnreachable,
    }
}

pub(super) fn points(bytes: &[u8]) -> Result<Vec<PublicKey>, WalletError> {
    let point = |bytes| PublicKey::from_slice(bytes);
    let points: Result<Vec<_>, _> = bytes.chunks(POINT_BYTES).map(point).collect();
    points.map_err(|error| WalletError::Crypto(error.to_string()))
}

/// Beyond these a token is refused before it is looked at: parsing and checking take time in
/// proportion.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
pub const TOKEN_PROOFS_MAX: usize = 1000;

pub(super) const POINT_BYTES: usize = 33;

/// NUT-02 counts fees in parts per thousand of a unit.
pub(super) const PPK: u64 = 1000;
