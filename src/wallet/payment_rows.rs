//! The rows of payments, and the statements over them.

use cdk::nuts::Id;

use super::issue::Issue;
use super::lease::free;
use super::mint::Unit;
use super::rows::{Attempt, ProofRow, RedemptionRow, State, damaged, keyset_id, msat};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, PaymentId, WithdrawalId};
use crate::money::Msat;
use crate::store::{Row, StoreError, Tx, values};

/// What the till wants to be paid.
#[derive(Clone, Debug)]
pub(crate) struct PaymentPlan {
    pub(crate) id: PaymentId,
    /// The withdrawal that is to pay for it.
    pub(crate) withdrawal: WithdrawalId,
    pub(crate) account: AccountId,
    pub(crate) recipient: String,
    /// Whether all that there was is to be paid, and what had ever been paid in by then: so is a
    /// repetition told from a new wish.
    pub(crate) everything: bool,
    pub(crate) deposited: Msat,
    pub(crate) mint: String,
    pub(crate) unit: Unit,
    /// What the recipient gets.
    pub(crate) amount: Msat,
    /// What the withdrawal takes: the amount and the most that it may cost.
    pub(crate) booked: Msat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaymentState {
    /// Written down; the mint was not asked to pay.
    Planned,
    /// The mint is being asked to pay, or was and did not say what became of it.
    Paying,
    Paid,
    /// Not paid, and certainly not paid any more.
    Failed,
}

impl PaymentState {
    const ALL: [Self; 4] = [Self::Planned, Self::Paying, Self::Paid, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Paying => "paying",
            Self::Paid => "paid",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct PaymentRow {
    pub(super) plan: PaymentPlan,
    /// In the unit, as all that the mint is told or tells.
    pub(super) fee_reserve: u64,
    pub(super) quote: String,
    pub(super) payment_hash: String,
    /// Where the outputs begin that the mint may give change in.
    pub(super) keyset: Id,
    pub(super) counter_start: u32,
    pub(super) blanks: usize,
    pub(super) state: PaymentState,
    pub(super) expires: UnixMs,
    /// When the mint was asked to pay first.
    pub(super) asked: Option<UnixMs>,
    /// Whether it has answered that, so that no request to pay is on its way.
    pub(super) heard: bool,
    pub(super) ended: Option<UnixMs>,
    pub(super) returned: Msat,
}

impl PaymentRow {
    pub(super) fn count(&self) -> u64 {
        self.plan.unit.count(self.plan.amount)
    }

    pub(super) fn booked_count(&self) -> u64 {
        self.plan.unit.count(self.plan.booked)
    }

    pub(super) fn deposit(&self) -> DepositId {
        DepositId::of_payment(&self.plan.id)
    }

    /// Its proofs are set aside as a token's would be.
    pub(super) fn issue(&self) -> Issue {
        let PaymentPlan { withdrawal, account, mint, unit, booked, .. } = &self.plan;
        Issue {
            id: withdrawal.clone(),
            account: account.clone(),
            mint: mint.clone(),
            unit: unit.name.clone(),
            amount: *booked,
        }
    }

    pub(super) fn insert(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let sql = "INSERT INTO payments (id, withdrawal, account, recipient, everything,
                   deposited_msat, mint, unit, amount, amount_msat, booked, booked_msat,
                   fee_reserve, quote, payment_hash, keyset, counter_start, blanks, deposit,
                   expires_ms, state)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
                   ?17, ?18, ?19, ?20, 'planned')";
        let plan = &self.plan;
        let values = values![
            plan.id.as_str(),
            plan.withdrawal.as_str(),
            plan.account.as_str(),
            &plan.recipient,
            i64::from(plan.everything),
            plan.deposited.to_i64(),
            &plan.mint,
            &plan.unit.name,
            self.count().cast_signed(),
            plan.amount.to_i64(),
            self.booked_count().cast_signed(),
            plan.booked.to_i64(),
            self.fee_reserve.cast_signed(),
            &self.quote,
            &self.payment_hash,
            self.keyset.to_string(),
            self.counter_start,
            u32::try_from(self.blanks).map_err(|_| damaged("blanks"))?,
            self.deposit().as_str(),
            self.expires.to_i64(),
        ];
        tx.execute(sql, values)?;
        Ok(())
    }

    pub(super) fn find(tx: &mut Tx<'_>, id: &PaymentId) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT id, withdrawal, account, recipient, everything, deposited_msat, mint,
                   unit, amount_msat, booked_msat, fee_reserve, quote, payment_hash, keyset,
                   counter_start, blanks, state, expires_ms, asked_ms, ended_ms, returned_msat,
                   heard
                   FROM payments WHERE id = ?1";
        tx.row(sql, values![id.as_str()])?.map(|row| Self::read(&row)).transpose()
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let state: String = row.get(16)?;
        let state = PaymentState::ALL.into_iter().find(|known| known.name() == state);
        let unit = Unit::named(&row.get::<String>(7)?);
        let plan = PaymentPlan {
            id: PaymentId::stored(row.get::<String>(0)?),
            withdrawal: WithdrawalId::stored(row.get::<String>(1)?),
            account: AccountId::stored(row.get::<String>(2)?),
            recipient: row.get(3)?,
            everything: row.get::<i64>(4)? != 0,
            deposited: msat(row, 5)?,
            mint: row.get(6)?,
            unit: unit.ok_or_else(|| damaged("unit"))?,
            amount: msat(row, 8)?,
            booked: msat(row, 9)?,
        };
        Ok(Self {
            plan,
            fee_reserve: row.get(10)?,
            quote: row.get(11)?,
            payment_hash: row.get(12)?,
            keyset: keyset_id(&row.get::<String>(13)?)?,
            counter_start: row.get(14)?,
            blanks: usize::try_from(row.get::<u64>(15)?).map_err(|_| damaged("blanks"))?,
            state: state.ok_or_else(|| damaged("state"))?,
            expires: UnixMs::from_i64(row.get(17)?),
            asked: row.get::<Option<i64>>(18)?.map(UnixMs::from_i64),
            ended: row.get::<Option<i64>>(19)?.map(UnixMs::from_i64),
            returned: msat(row, 20)?,
            heard: row.get::<i64>(21)? != 0,
        })
    }

    /// Makes this gateway the owner of a payment that has not ended, if it is free.
    pub(super) fn take(tx: &mut Tx<'_>, id: &PaymentId, gateway: &str) -> Result<bool, StoreError> {
        let sql = concat!(
            "UPDATE payments SET owner = ?2
             WHERE id = ?1 AND state IN ('planned', 'paying') AND ",
            free!("?2")
        );
        Ok(tx.execute(sql, values![id.as_str(), gateway])? == 1)
    }

    /// Before the mint is asked: says so, and answers the proofs to pay with. `None` if they
    /// are not set aside, or if this gateway is not its owner any more.
    pub(super) fn begin(
        &self,
        tx: &mut Tx<'_>,
        gateway: &str,
    ) -> Result<Option<Vec<ProofRow>>, StoreError> {
        let sql = "UPDATE payments SET state = 'paying', asked_ms = ?3
                   WHERE id = ?1 AND state = 'planned' AND owner = ?2 AND EXISTS (
                       SELECT 1 FROM outgoing
                       WHERE outgoing.id = payments.withdrawal AND outgoing.state = 'issued')";
        let values = values![self.plan.id.as_str(), gateway, UnixMs::now().to_i64()];
        match tx.execute(sql, values)? {
            1 => self.inputs(tx).map(Some),
            _ => Ok(None),
        }
    }

    /// The first request to pay was answered.
    pub(super) fn hear(&self, tx: &mut Tx<'_>, gateway: &str) -> Result<(), StoreError> {
        let sql = "UPDATE payments SET heard = 1
                   WHERE id = ?1 AND state = 'paying' AND owner = ?2";
        tx.execute(sql, values![self.plan.id.as_str(), gateway])?;
        Ok(())
    }

    pub(super) fn inputs(&self, tx: &mut Tx<'_>) -> Result<Vec<ProofRow>, StoreError> {
        ProofRow::held_by(tx, self.plan.withdrawal.as_str())
    }

    /// The mint has paid: its change is a redemption from here on. False if this gateway is not
    /// its owner any more.
    pub(super) fn pay(
        &self,
        tx: &mut Tx<'_>,
        gateway: &str,
        change: &[ProofRow],
        preimage: Option<String>,
    ) -> Result<bool, StoreError> {
        let parts: Vec<u64> = change.iter().map(|proof| proof.amount).collect();
        let total = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(*part));
        let returned = self.plan.unit.msat(total).ok_or_else(|| damaged("change"))?;
        if !self.end(tx, gateway, PaymentState::Paid, returned, preimage)? {
            return Ok(false);
        }
        if returned > Msat::ZERO {
            self.redeem(tx, gateway, parts, returned, change)?;
        }
        Ok(true)
    }

    /// It was not paid and will not be: what was set aside is in the pool again, and all that
    /// was booked is a redemption. False if this gateway is not its owner any more.
    pub(super) fn fail(&self, tx: &mut Tx<'_>, gateway: &str) -> Result<bool, StoreError> {
        if !self.end(tx, gateway, PaymentState::Failed, self.plan.booked, None)? {
            return Ok(false);
        }
        // Nothing of it can be set aside any more, whoever has not heard yet.
        let sql = "INSERT INTO outgoing
                   (id, account, mint, unit, amount, amount_msat, state, checked_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'claimed', ?7)
                   ON CONFLICT (id) DO UPDATE SET state = 'claimed'";
        let values = values![
            self.plan.withdrawal.as_str(),
            self.plan.account.as_str(),
            &self.plan.mint,
            &self.plan.unit.name,
            self.booked_count().cast_signed(),
            self.plan.booked.to_i64(),
            UnixMs::now().to_i64(),
        ];
        tx.execute(sql, values)?;
        let sql = "UPDATE proofs SET holder = NULL WHERE holder = ?1";
        tx.execute(sql, values![self.plan.withdrawal.as_str()])?;
        self.redeem(tx, gateway, vec![self.booked_count()], self.plan.booked, &[])?;
        Ok(true)
    }

    fn end(
        &self,
        tx: &mut Tx<'_>,
        gateway: &str,
        state: PaymentState,
        returned: Msat,
        preimage: Option<String>,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE payments SET state = ?3, returned_msat = ?4, preimage = ?5,
                   ended_ms = ?6, owner = NULL
                   WHERE id = ?1 AND state IN ('planned', 'paying') AND owner = ?2";
        let values = values![
            self.plan.id.as_str(),
            gateway,
            state.name(),
            returned.to_i64(),
            preimage,
            UnixMs::now().to_i64(),
        ];
        Ok(tx.execute(sql, values)? == 1)
    }

    fn redeem(
        &self,
        tx: &mut Tx<'_>,
        gateway: &str,
        parts: Vec<u64>,
        amount: Msat,
        proofs: &[ProofRow],
    ) -> Result<(), StoreError> {
        let attempt = Attempt {
            mint: self.plan.mint.clone(),
            unit: self.plan.unit.name.clone(),
            keyset: self.keyset,
            counter_start: self.counter_start,
            outputs: parts,
            ys: Vec::new(),
        };
        let redemption = RedemptionRow {
            id: self.deposit(),
            account: self.plan.account.clone(),
            attempt,
            amount,
            fee: Msat::ZERO,
            state: State::Recorded,
            asked: UnixMs::now(),
            terms: None,
        };
        let inserted = redemption.insert(tx, gateway)?;
        if inserted && redemption.keep(tx, gateway, proofs)? {
            Ok(())
        } else {
            Err(damaged("a payment came back twice"))
        }
    }
}
