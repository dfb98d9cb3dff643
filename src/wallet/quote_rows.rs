//! The rows of invoices, and the statements over them.

use std::time::Duration;

use cdk::nuts::Id;

use super::lease::free;
use super::quote_mint::Offer;
use super::redeem::LATE;
use super::rows::{Attempt, amounts, damaged, keyset_id, listed, msat};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId};
use crate::money::Msat;
use crate::store::{Row, StoreError, Tx, Value, values};

/// What an invoice's payment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It opens an account.
    Create,
    /// It goes to one that was there before.
    TopUp,
}

impl Purpose {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::TopUp => "topup",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuoteState {
    /// Written down; the mint is being asked for its invoice, or was and did not give one.
    Recorded,
    /// The client may have the invoice.
    Offered,
    /// The mint has the payment. Our outputs are written down, and it may have signed them.
    Paid,
    /// The proofs are ours; the rest is the redemption's of the same id.
    Redeemed,
    /// The mint has signed for it, and not for us.
    Lost,
}

impl QuoteState {
    const ALL: [Self; 5] = [Self::Recorded, Self::Offered, Self::Paid, Self::Redeemed, Self::Lost];

    const fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Offered => "offered",
            Self::Paid => "paid",
            Self::Redeemed => "redeemed",
            Self::Lost => "lost",
        }
    }
}

#[derive(Clone)]
pub(super) struct QuoteRow {
    pub(super) id: DepositId,
    pub(super) account: AccountId,
    pub(super) purpose: Purpose,
    pub(super) terms: Option<String>,
    pub(super) mint: String,
    pub(super) unit: String,
    /// In units.
    pub(super) count: u64,
    pub(super) amount: Msat,
    /// Its name at the mint, once it has one.
    pub(super) quote: Option<String>,
    /// Whether the mint signs only with our key.
    pub(super) locked: bool,
    pub(super) outputs: Option<Outputs>,
    pub(super) state: QuoteState,
    pub(super) created: UnixMs,
    pub(super) expires: UnixMs,
    pub(super) paid: Option<UnixMs>,
}

/// What the mint is to sign for the payment.
#[derive(Clone)]
pub(super) struct Outputs {
    pub(super) keyset: Id,
    pub(super) counter_start: u32,
    pub(super) parts: Vec<u64>,
}

impl QuoteRow {
    pub(super) fn find(tx: &mut Tx<'_>, id: &DepositId) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT id, account, purpose, terms, mint, unit, amount, amount_msat, quote,
                   locked, keyset, counter_start, outputs, state, created_ms, expires_ms, paid_ms
                   FROM quotes WHERE id = ?1";
        tx.row(sql, values![id.as_str()])?.map(|row| Self::read(&row)).transpose()
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let purpose: String = row.get(2)?;
        let purpose =
            [Purpose::Create, Purpose::TopUp].into_iter().find(|known| known.name() == purpose);
        let state: String = row.get(13)?;
        let state = QuoteState::ALL.into_iter().find(|known| known.name() == state);
        let outputs = match row.get::<Option<String>>(10)? {
            None => None,
            Some(keyset) => Some(Outputs {
                keyset: keyset_id(&keyset)?,
                counter_start: row.get(11)?,
                parts: amounts(&row.get::<String>(12)?)?,
            }),
        };
        Ok(Self {
            id: DepositId::stored(row.get::<String>(0)?),
            account: AccountId::stored(row.get::<String>(1)?),
            purpose: purpose.ok_or_else(|| damaged("purpose"))?,
            terms: row.get(3)?,
            mint: row.get(4)?,
            unit: row.get(5)?,
            count: row.get(6)?,
            amount: msat(row, 7)?,
            quote: row.get(8)?,
            locked: row.get(9)?,
            outputs,
            state: state.ok_or_else(|| damaged("state"))?,
            created: UnixMs::from_i64(row.get(14)?),
            expires: UnixMs::from_i64(row.get(15)?),
            paid: row.get::<Option<i64>>(16)?.map(UnixMs::from_i64),
        })
    }

    /// Writes a new one down, owned by this gateway. False when so many are open already.
    ///
    /// Gateways that ask at the same moment do not see each other's, so that a fleet may have a
    /// few more.
    pub(super) fn insert(&self, tx: &mut Tx<'_>, gateway: &str) -> Result<bool, StoreError> {
        let now = self.created.to_i64();
        let sql = "SELECT COUNT(*) FROM quotes
                   WHERE state IN ('recorded', 'offered') AND expires_ms > ?1";
        let open: u64 = tx.row(sql, values![now])?.map_or(Ok(0), |row| row.get(0))?;
        if open >= OPEN_MAX {
            return Ok(false);
        }
        let sql = "INSERT INTO quotes (id, account, purpose, terms, mint, unit, amount,
                   amount_msat, state, owner, created_ms, expires_ms, checked_ms, next_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'recorded', ?9, ?10, ?11, 0, ?11)";
        let values = values![
            self.id.as_str(),
            self.account.as_str(),
            self.purpose.name(),
            self.terms.clone().map_or(Value::Null, Value::from),
            &self.mint,
            &self.unit,
            i64::try_from(self.count).map_err(|_| damaged("amount"))?,
            self.amount.to_i64(),
            gateway,
            now,
            self.expires.to_i64(),
        ];
        Ok(tx.execute(sql, values)? == 1)
    }

    /// The mint's invoice for it is written down. False if this gateway is not its owner any more.
    pub(super) fn offer(
        tx: &mut Tx<'_>,
        id: &DepositId,
        offer: &Offer,
        gateway: &str,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE quotes SET state = 'offered', owner = NULL, quote = ?2,
                   payment_hash = ?3, locked = ?4, expires_ms = ?5, next_ms = ?6
                   WHERE id = ?1 AND state = 'recorded' AND owner = ?7";
        let values = values![
            id.as_str(),
            &offer.quote,
            &offer.payment_hash,
            i64::from(offer.locked),
            offer.expires.to_i64(),
            UnixMs::now().plus(FIRST_LOOK).to_i64(),
            gateway,
        ];
        Ok(tx.execute(sql, values)? == 1)
    }

    /// Makes this gateway the owner of one that is not over, if it is free.
    pub(super) fn take(tx: &mut Tx<'_>, id: &DepositId, gateway: &str) -> Result<bool, StoreError> {
        let sql = concat!(
            "UPDATE quotes SET owner = ?2, checked_ms = ?3
             WHERE id = ?1 AND state IN ('recorded', 'offered', 'paid') AND ",
            free!("?2")
        );
        let values = values![id.as_str(), gateway, UnixMs::now().to_i64()];
        Ok(tx.execute(sql, values)? == 1)
    }

    /// The mint has the payment, or new outputs are to be asked for: they are written down
    /// before it is. False if this gateway is not the owner any more.
    pub(super) fn pay(&self, tx: &mut Tx<'_>, gateway: &str) -> Result<bool, StoreError> {
        let Some(Outputs { keyset, counter_start, parts }) = &self.outputs else {
            return Err(damaged("outputs"));
        };
        let sql = "UPDATE quotes SET state = 'paid', keyset = ?2, counter_start = ?3,
                   outputs = ?4, paid_ms = COALESCE(paid_ms, CAST(?5 AS BIGINT)), next_ms = ?5,
                   tries = 0
                   WHERE id = ?1 AND state IN ('offered', 'paid') AND owner = ?6";
        let values = values![
            self.id.as_str(),
            keyset.to_string(),
            *counter_start,
            listed(parts),
            UnixMs::now().to_i64(),
            gateway,
        ];
        Ok(tx.execute(sql, values)? == 1)
    }

    /// What the mint is asked to sign, as redemptions have it.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        let Outputs { keyset, counter_start, parts } = self.outputs.clone()?;
        Some(Attempt {
            mint: self.mint.clone(),
            unit: self.unit.clone(),
            keyset,
            counter_start,
            outputs: parts,
            ys: Vec::new(),
        })
    }
}

/// The invoices whose turn it is, from here on this gateway's: a bounded number, the longest
/// due first. Each is put off, twice as long each time: one that is offered by five minutes at
/// most and an hour once it has expired, one that is paid by a minute. `horizon` as in `due`.
pub(super) fn take_due(
    tx: &mut Tx<'_>,
    horizon: i64,
    most: u32,
    gateway: &str,
) -> Result<Vec<DepositId>, StoreError> {
    let values = values![horizon, UnixMs::now().to_i64(), most, gateway];
    let ids: Result<Vec<String>, StoreError> =
        tx.rows(QUOTES_DUE, values)?.iter().map(|row| row.get(0)).collect();
    Ok(ids?.into_iter().map(DepositId::stored).collect())
}

const QUOTES_DUE: &str = concat!(
    "UPDATE quotes SET owner = ?4, tries = tries + 1, next_ms = CAST(?2 AS BIGINT) + CASE
         WHEN state = 'offered' AND expires_ms <= ?2 THEN 3600000
         WHEN state = 'paid' AND tries > 4 THEN 60000
         WHEN tries > 7 THEN 300000
         ELSE 2000 << CAST(tries AS INTEGER) END
     WHERE id IN (SELECT id FROM quotes
         WHERE (next_ms <= ?2 OR (state = 'paid' AND next_ms <= ?1))
             AND state IN ('recorded', 'offered', 'paid') AND ",
    free!("?4"),
    " ORDER BY next_ms LIMIT ?3 FOR UPDATE SKIP LOCKED)
     RETURNING id"
);

/// When a row is of no use whose mint gave no invoice.
pub(super) fn unanswered_until(created: UnixMs) -> UnixMs {
    created.plus(LATE)
}

/// When an invoice is first looked at without being asked for.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Invoices that wait for their payment at the same time. Anybody may ask for one, so that what
/// they take up here and at the mints has a bound; beyond it nobody gets another.
pub(super) const OPEN_MAX: u64 = 10_000;
