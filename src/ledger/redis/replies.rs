//! What the scripts answer, made into the ledger's types.

use std::time::Duration;

use redis::Value;

use crate::clock::UnixMs;
use crate::ids::{AccountId, AttemptId, DepositId, ReservationId, WithdrawalId};
use crate::ledger::once::Claimed;
use crate::ledger::terms::{Cap, Reset, Room, Standing, Terms, Usage, Window};
use crate::ledger::{
    Account, Denial, Denied, Ended, Entry, Family, Limit, Limited, NotOpened, Receipt, Record,
    Unavailable, UsageSource, What, Withdrawal, WithdrawalDenied, WithdrawalState,
};
use crate::money::Msat;

/// The parts of an answer, read one after the other.
pub(super) struct Parts(std::vec::IntoIter<Value>);

pub(super) type Read<T> = Result<T, Unavailable>;

impl Parts {
    pub(super) fn of(value: Value) -> Read<Self> {
        match value {
            Value::Array(parts) => Ok(Self(parts.into_iter())),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn next(&mut self) -> Read<Value> {
        self.0.next().ok_or_else(unreadable)
    }

    pub(super) fn text(&mut self) -> Read<String> {
        text(self.next()?)
    }

    /// A number, an absent one being 0.
    pub(super) fn number(&mut self) -> Read<u64> {
        Ok(self.maybe_number()?.unwrap_or(0))
    }

    fn maybe_number(&mut self) -> Read<Option<u64>> {
        match self.next()? {
            Value::Nil => Ok(None),
            Value::Int(number) => u64::try_from(number).map(Some).map_err(|_| unreadable()),
            other => text(other)?.parse().map(Some).map_err(|_| unreadable()),
        }
    }

    pub(super) fn msat(&mut self) -> Read<Msat> {
        Msat::new(self.number()?).ok_or_else(unreadable)
    }

    fn maybe_text(&mut self) -> Read<Option<String>> {
        match self.next()? {
            Value::Nil => Ok(None),
            other => text(other).map(Some),
        }
    }

    fn time(&mut self) -> Read<UnixMs> {
        self.number().map(UnixMs)
    }

    /// The fields of an account, in the order of [`super::scripts::ACCOUNT_FIELDS`]. `None`: no
    /// such account.
    pub(super) fn account(mut self) -> Read<Option<Account>> {
        if matches!(self.0.as_slice(), [] | [Value::Nil, ..]) {
            return Ok(None);
        }
        let mut account = Account {
            deposited: self.msat()?,
            available: self.msat()?,
            reserved: self.msat()?,
            spent: self.msat()?,
            refunded: self.msat()?,
            shortfall: self.msat()?,
            requests: self.number()?,
            withdrawals: self.number()?,
            open_reservations: self.number()?,
            entries: self.number()?,
            parent: self.maybe_text()?.map(AccountId::stored),
            ..Account::default()
        };
        account.terms = self.terms()?;
        account.usage = self.usage()?;
        Ok(Some(account))
    }

    fn terms(&mut self) -> Read<Terms> {
        let expires = self.maybe_number()?.map(UnixMs);
        let (amount, reset) = (self.msat()?, self.maybe_text()?);
        let reset = reset.as_deref().and_then(Reset::named);
        Ok(Terms {
            expires,
            cap: reset.map(|reset| Cap { amount, reset }),
            requests_per_minute: self.maybe_number()?,
            tokens_per_hour: self.maybe_number()?,
            concurrent: self.maybe_number()?,
        })
    }

    fn usage(&mut self) -> Read<Usage> {
        Ok(Usage {
            open: self.number()?,
            held: self.msat()?,
            tokens_held: self.number()?,
            spent: self.msat()?,
            spent_before: self.msat()?,
            period: self.number()?,
            requests: Window { start: self.time()?, count: self.number()? },
            tokens: Window { start: self.time()?, count: self.number()? },
        })
    }

    /// What is available beside a new reservation or why there is none, and where the key stands.
    pub(super) fn admission(mut self) -> Read<Result<(Msat, Standing), Denial>> {
        match self.reserved()? {
            Ok(available) => Ok(Ok((available, self.standing()?))),
            Err(denied) => {
                let standing = if self.is_empty() { None } else { Some(self.standing()?) };
                Ok(Err(Denial { denied, standing }))
            }
        }
    }

    fn standing(&mut self) -> Read<Standing> {
        let mut room = || {
            let (limit, left) = (self.number()?, self.number()?);
            Ok(Room { limit, left, reset_in: Duration::from_millis(self.number()?) })
        };
        Ok(Standing { requests: room()?, tokens: room()? })
    }

    /// What is available beside the reservation, or why there is none.
    pub(super) fn reserved(&mut self) -> Read<Result<Msat, Denied>> {
        let limited = |which, parts: &mut Self| {
            let (limit, after) = (parts.number()?, parts.number()?);
            let retry_after = Duration::from_millis(after);
            Ok(Denied::Limited(Limited { which, limit, retry_after }))
        };
        Ok(Err(match self.text()?.as_str() {
            "ok" => return Ok(Ok(self.msat()?)),
            "none" => Denied::NoAccount,
            "expired" => Denied::Expired,
            "concurrent" => limited(Limit::Concurrent, self)?,
            "requests" => limited(Limit::Requests, self)?,
            "tokens" => limited(Limit::Tokens, self)?,
            "capped" => Denied::Capped { left: self.msat()? },
            "insufficient" => {
                Denied::Insufficient { available: self.msat()?, account_idle: self.number()? == 1 }
            }
            "ended" => Denied::AlreadyEnded,
            "flight" => Denied::InFlight,
            "served" => Denied::Served,
            "reused" => Denied::Reused,
            _ => return Err(unreadable()),
        }))
    }

    /// The parent whose children were opened, or why none was.
    pub(super) fn opened(mut self) -> Read<Result<Account, NotOpened>> {
        Ok(Err(match self.text()?.as_str() {
            "ok" => {
                let parent = Self::of(self.next()?)?.account()?;
                return parent.ok_or_else(unreadable).map(Ok);
            }
            "none" => NotOpened::NoParent,
            "many" => NotOpened::TooMany { left: self.number()? },
            _ => return Err(unreadable()),
        }))
    }

    /// An account and [`super::scripts::HAS_CHILDREN`]: the account if nobody belongs to it, or
    /// that there is none; `None` if somebody does.
    pub(super) fn single(mut self) -> Read<Option<Option<Account>>> {
        let has_children = self.0.next_back().ok_or_else(unreadable)? != Value::Nil;
        let account = self.account()?;
        let is_child = account.as_ref().is_some_and(|account| account.parent.is_some());
        Ok((!has_children && !is_child).then_some(account))
    }

    /// `None`: no such account.
    pub(super) fn family(mut self) -> Read<Option<Family>> {
        let account = Self::of(self.next()?)?.account()?;
        let parent = Self::of(self.next()?)?.account()?;
        let mut children = Vec::new();
        while !self.is_empty() {
            let id = AccountId::stored(self.text()?);
            let child = Self::of(self.next()?)?.account()?;
            children.push((id, child.ok_or_else(unreadable)?));
        }
        children.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(account.map(|account| Family { account, parent, children }))
    }

    /// What comes of a claim.
    pub(super) fn claimed(mut self) -> Read<Claimed> {
        Ok(match self.text()?.as_str() {
            "ours" => Claimed::Ours { first: AttemptId::stored(self.text()?) },
            "flight" => Claimed::InFlight,
            "reused" => Claimed::Reused,
            "answered" => Claimed::Answered(self.bytes()?),
            "much" => Claimed::TooMuch { retry_after: Duration::from_millis(self.number()?) },
            _ => return Err(unreadable()),
        })
    }

    pub(super) fn bytes(&mut self) -> Read<Vec<u8>> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn receipt(&mut self) -> Read<Receipt> {
        Ok(Receipt {
            how: Ended::named(&self.text()?).ok_or_else(unreadable)?,
            spent: self.msat()?,
            returned: self.msat()?,
            shortfall: self.msat()?,
            available: self.msat()?,
        })
    }

    pub(super) fn withdrawal(
        mut self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Read<Result<Withdrawal, WithdrawalDenied>> {
        Ok(Err(match self.text()?.as_str() {
            "ok" => return withdrawal(&self.text()?, account, id).map(Ok),
            "none" => WithdrawalDenied::NoAccount,
            "child" => WithdrawalDenied::Child,
            "busy" => WithdrawalDenied::RequestsInProgress { open: self.number()? },
            "small" => WithdrawalDenied::TooSmall { available: self.msat()? },
            "insufficient" => WithdrawalDenied::Insufficient { available: self.msat()? },
            _ => return Err(unreadable()),
        }))
    }
}

/// A withdrawal's row: state, amount, unit and mint.
pub(super) fn withdrawal(row: &str, account: AccountId, id: WithdrawalId) -> Read<Withdrawal> {
    let mut parts = row.splitn(4, ' ');
    let mut part = || parts.next().ok_or_else(unreadable);
    let state = match part()? {
        "begun" => WithdrawalState::Begun,
        "committed" => WithdrawalState::Committed,
        "reverted" => WithdrawalState::Reverted,
        _ => return Err(unreadable()),
    };
    let amount = msat(part()?)?;
    let (unit, mint) = (part()?.to_owned(), part()?.to_owned());
    Ok(Withdrawal { id, account, amount, mint, unit, state })
}

/// What of a record is kept as it is: lines, of which only the last may hold anything.
pub(super) fn lines_of(record: &Record) -> String {
    let source = record.usage_source.map_or("", UsageSource::name);
    [&record.request_id, &record.route, source, &record.usage, &record.model].join("\n")
}

/// An entry of a history as the scripts write it: what it is, its id, when, and its amounts, none
/// of which has a space; behind that the lines of a record.
pub(super) fn entry(text: &str) -> Read<Entry> {
    let (head, lines) = text.split_once('\n').unwrap_or((text, ""));
    let mut parts = head.split(' ');
    let mut part = || parts.next().ok_or_else(unreadable);
    let (kind, id) = (part()?, part()?.to_owned());
    let at = UnixMs(number(part()?)?);
    let what = match kind {
        "d" => What::Deposit { id: DepositId::stored(id), amount: msat(part()?)? },
        "w" => What::Withdrawal { id: WithdrawalId::stored(id), amount: msat(part()?)? },
        "r" => What::Request {
            id: ReservationId::stored(id),
            how: Ended::named(part()?).ok_or_else(unreadable)?,
            reserved: msat(part()?)?,
            spent: msat(part()?)?,
            shortfall: msat(part()?)?,
            record: record(number(part()?)?, number(part()?)?, lines)?,
        },
        _ => return Err(unreadable()),
    };
    Ok(Entry { at, what })
}

fn record(input_tokens: u64, output_tokens: u64, lines: &str) -> Read<Record> {
    let lines: Vec<&str> = lines.splitn(5, '\n').collect();
    let [request_id, route, source, usage, model] = lines[..] else { return Err(unreadable()) };
    Ok(Record {
        request_id: request_id.to_owned(),
        route: route.to_owned(),
        model: model.to_owned(),
        usage_source: UsageSource::named(source),
        input_tokens,
        output_tokens,
        usage: usage.to_owned(),
    })
}

fn number(text: &str) -> Read<u64> {
    text.parse().map_err(|_| unreadable())
}

fn msat(text: &str) -> Read<Msat> {
    Msat::new(number(text)?).ok_or_else(unreadable)
}

pub(super) fn text(value: Value) -> Read<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| unreadable()),
        Value::SimpleString(text) => Ok(text),
        Value::Int(number) => Ok(number.to_string()),
        _ => Err(unreadable()),
    }
}

pub(super) fn unreadable() -> Unavailable {
    Unavailable("the ledger's answer cannot be read".to_owned())
}
