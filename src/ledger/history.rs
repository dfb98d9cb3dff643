//! The history of an account: what came in, what left, and what its requests cost.
//!
//! Every entry has a number of its own in the history it stands in, given when it is made and
//! never changed or used again. A page begins below a number, so paging meets every entry that
//! was there when it began exactly once, whatever is written meanwhile. A child's history is its
//! own requests; its parent's has the requests of all its children.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::book::{Book, Ending, Held, Placed};
use super::{Deposit, Ended, Record, Withdrawal, WithdrawalState};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, ReservationId, WithdrawalId};
use crate::money::Msat;

/// How much of a history is told, the same in every ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest.
    pub entries_max: u64,
    /// None that is older; `None`: however old.
    pub kept: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { entries_max: 1_000, kept: None }
    }
}

impl Retention {
    /// What is older than this is not told.
    pub(super) fn since(self, now: UnixMs) -> UnixMs {
        let kept =
            self.kept.map_or(u64::MAX, |kept| u64::try_from(kept.as_millis()).unwrap_or(u64::MAX));
        UnixMs(now.0.saturating_sub(kept))
    }
}

/// Entries, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The number of each of them.
    pub numbers: Vec<u64>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<Cursor>,
}

impl Page {
    /// How many entries may be asked for at once: a page never holds a ledger up for long.
    pub(super) fn limit(asked: u32) -> u32 {
        asked.clamp(1, HISTORY_PAGE_MAX)
    }

    /// A page of at most `limit` of these, which are one more than that if there are more. Each
    /// with its number, the newest first.
    pub(super) fn of(mut found: Vec<(u64, Entry)>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().map(|(nth, _)| Cursor(*nth));
        let (numbers, entries) = found.into_iter().unzip();
        Self { entries, numbers, next: last.filter(|_| has_more) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// By the ledger's clock. The order is that of the numbers, whatever the clock did.
    pub at: UnixMs,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Deposit {
        id: DepositId,
        amount: Msat,
    },
    /// Booked out, and not put back.
    Withdrawal {
        id: WithdrawalId,
        amount: Msat,
    },
    /// A reservation that has ended.
    Request {
        id: ReservationId,
        reserved: Msat,
        spent: Msat,
        shortfall: Msat,
        how: Ended,
        record: Record,
    },
}

/// A place in a history: what is older than the entry of this number. It means nothing but an
/// order, so one that came from another account's history shows nothing of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u64);

impl Cursor {
    /// `None` for what no history can count up to.
    pub fn below(nth: u64) -> Option<Self> {
        (nth <= NTH_MAX).then_some(Self(nth))
    }

    pub(super) const fn nth(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// What was never given out as a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let nth = u64::from_str_radix(text, 16).map_err(|_| NoCursor)?;
        Self::below(nth).filter(|cursor| cursor.to_string() == text).ok_or(NoCursor)
    }
}

impl Book {
    /// A page of an account's history, of a book that holds everything.
    pub fn history(&self, of: &AccountId, before: Option<Cursor>, limit: u32) -> Page {
        let deposits = self.deposits.values().filter(|deposit| deposit.what.account == *of);
        let deposits = deposits.map(|Placed { what: Deposit { id, amount, .. }, place }| {
            (place.nth, place.at, What::Deposit { id: id.clone(), amount: *amount })
        });
        let left = |one: &&Placed<Withdrawal>| {
            one.what.account == *of && one.what.state != WithdrawalState::Reverted
        };
        let withdrawals = self.withdrawals.values().filter(left);
        let withdrawals =
            withdrawals.map(|Placed { what: Withdrawal { id, amount, .. }, place }| {
                (place.nth, place.at, What::Withdrawal { id: id.clone(), amount: *amount })
            });
        let requests = self.reservations.iter().filter_map(|(id, held)| {
            let Ending { place, key_nth, .. } = held.end.as_ref()?;
            let nth = if held.account == *of { place.nth } else { *key_nth };
            (held.account == *of || held.key == *of).then_some(())?;
            Some((nth, place.at, held.entry(id)?))
        });
        let mut found: Vec<_> = deposits
            .chain(withdrawals)
            .chain(requests)
            .filter(|(nth, ..)| before.is_none_or(|before| *nth < before.nth()))
            .map(|(nth, at, what)| (nth, Entry { at, what }))
            .collect();
        found.sort_by_key(|(nth, _)| Reverse(*nth));
        Page::of(found, Page::limit(limit))
    }
}

impl Held {
    /// `None` while it is open.
    fn entry(&self, id: &ReservationId) -> Option<What> {
        let Ending { receipt, record, .. } = self.end.as_ref()?;
        Some(What::Request {
            id: id.clone(),
            reserved: self.amount,
            spent: receipt.spent,
            shortfall: receipt.shortfall,
            how: receipt.how,
            record: record.clone(),
        })
    }
}

/// Entries in one answer at most; more are not answered, whatever is asked.
pub const HISTORY_PAGE_MAX: u32 = 100;

/// A Redis script counts no further, and no account gets there.
const NTH_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        for nth in [0, 1, 0xabc, NTH_MAX] {
            let cursor = Cursor::below(nth).unwrap();
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        assert_eq!(Cursor::below(NTH_MAX + 1), None);
        for forged in [
            "",
            "1",
            "0000000000001",
            "000000000000001",
            "+0000000000001",
            "-0000000000001",
            "00000000000ABC",
            "20000000000000",
            "ffffffffffffff",
            "0000000000000é",
            " 0000000000001",
        ] {
            assert_eq!(forged.parse::<Cursor>(), Err(NoCursor), "{forged:?}");
        }
    }

    #[test]
    fn a_page_has_what_was_asked_for_up_to_its_bound_and_knows_whether_there_is_more() {
        for (asked, limit) in [(0, 1), (1, 1), (HISTORY_PAGE_MAX, 100), (HISTORY_PAGE_MAX + 1, 100)]
        {
            assert_eq!(Page::limit(asked), limit);
        }
        let what = What::Deposit { id: DepositId::stored("d"), amount: Msat::ZERO };
        let found = |count: u64| {
            let entry = Entry { at: UnixMs(0), what: what.clone() };
            (1..=count).rev().map(|nth| (nth, entry.clone())).collect::<Vec<_>>()
        };
        for (there, shown, next) in [(0, 0, None), (2, 2, None), (3, 2, Cursor::below(2))] {
            let page = Page::of(found(there), 2);
            assert_eq!((page.entries.len(), page.next), (shown, next), "{there}");
        }
    }
}
