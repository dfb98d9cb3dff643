//! What a webhook can hear of, and how an event is written.
//!
//! An event's id follows from what happened, so that the same event has the same id whoever writes
//! it down and however often it is delivered: by it a consumer knows what it has seen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clock::UnixMs;
use crate::ids::AccountId;
use crate::ledger::terms::REVOKED;
use crate::ledger::{Ended, Entry, What};
use crate::money::Msat;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EventKind {
    /// The balance has fallen below the configured threshold.
    #[serde(rename = "balance.low")]
    BalanceLow,
    #[serde(rename = "key.expired")]
    KeyExpired,
    #[serde(rename = "balance.topup")]
    BalanceTopup,
    #[serde(rename = "balance.refunded")]
    BalanceRefunded,
    /// A request was charged.
    #[serde(rename = "payment.settled")]
    PaymentSettled,
}

impl EventKind {
    pub const ALL: [Self; 5] = [
        Self::BalanceLow,
        Self::KeyExpired,
        Self::BalanceTopup,
        Self::BalanceRefunded,
        Self::PaymentSettled,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::BalanceLow => "balance.low",
            Self::KeyExpired => "key.expired",
            Self::BalanceTopup => "balance.topup",
            Self::BalanceRefunded => "balance.refunded",
            Self::PaymentSettled => "payment.settled",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether a child key can hear of it: it has no balance that anything enters or leaves.
    pub const fn is_for_children(self) -> bool {
        matches!(self, Self::KeyExpired | Self::PaymentSettled)
    }
}

/// Something that happened to an account, as it will be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) kind: EventKind,
    /// The number of the entry of the history that tells it, where one does.
    pub(super) nth: Option<u64>,
    /// JSON.
    pub(super) body: String,
}

impl Event {
    /// What an entry of an account's history is to who listens for it: a request that cost nothing
    /// is no event.
    pub(super) fn of_entry(account: &AccountId, nth: u64, entry: &Entry) -> Option<Self> {
        let (kind, id, data) = match &entry.what {
            What::Deposit { id, amount } => {
                (EventKind::BalanceTopup, id.as_str(), moved(id.as_str(), *amount))
            }
            What::Withdrawal { id, amount } => {
                (EventKind::BalanceRefunded, id.as_str(), moved(id.as_str(), *amount))
            }
            What::Request { how: Ended::Released, .. } => return None,
            What::Request { spent, .. } if *spent == Msat::ZERO => return None,
            What::Request { id, .. } => {
                (EventKind::PaymentSettled, id.as_str(), charged(&entry.what))
            }
        };
        let mut event = Self::new(account, kind, id, entry.at, data);
        event.nth = Some(nth);
        Some(event)
    }

    /// `entries` is how long the history was when it was seen.
    pub(super) fn low(
        account: &AccountId,
        entries: u64,
        balance: Msat,
        threshold: Msat,
        seen: UnixMs,
    ) -> Self {
        let data = json!({ "balance_msats": balance, "threshold_msats": threshold });
        Self::new(account, EventKind::BalanceLow, &entries.to_string(), seen, data)
    }

    /// Of a key that was revoked nobody says since when.
    pub(super) fn expired(account: &AccountId, expires: UnixMs, seen: UnixMs) -> Self {
        let date = Some(expires).filter(|expires| *expires != REVOKED);
        let revoked = date.is_none();
        let data = json!({ "validity_date": date.map(UnixMs::whole_seconds), "revoked": revoked });
        let (kind, at) = (EventKind::KeyExpired, date.unwrap_or(seen));
        Self::new(account, kind, &expires.0.to_string(), at, data)
    }

    fn new(account: &AccountId, kind: EventKind, what: &str, at: UnixMs, mut data: Value) -> Self {
        let named = format!("nutgate event:{account}:{}:{what}", kind.name());
        let digest = hex::encode(Sha256::digest(named));
        let id = format!("evt_{}", digest.split_at(ID_DIGITS).0);
        data["account_id"] = json!(account.as_str());
        let body = json!({
            "id": id,
            "type": kind.name(),
            "created_at": at.whole_seconds(),
            "data": data,
        });
        Self { id, kind, nth: None, body: body.to_string() }
    }
}

fn moved(id: &str, amount: Msat) -> Value {
    json!({ "id": id, "amount_msats": amount })
}

/// As `GET /v1/balance/history` has it.
fn charged(what: &What) -> Value {
    let What::Request { id, reserved, spent, shortfall, how, record } = what else {
        return json!({});
    };
    let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let usage: Option<Box<RawValue>> = serde_json::from_str(&record.usage).ok();
    json!({
        "id": id.as_str(),
        "request_id": known(&record.request_id),
        "route": known(&record.route),
        "model": known(&record.model),
        "how": how.name(),
        "usage": usage.map_or_else(|| json!({}), |usage| json!(usage)),
        "usage_source": record.usage_source.map(crate::ledger::UsageSource::name),
        "reserved_msats": reserved,
        "cost_msats": spent,
        "shortfall_msats": shortfall,
    })
}

const ID_DIGITS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DepositId, ReservationId};
    use crate::ledger::{Record, UsageSource};

    fn alice() -> AccountId {
        AccountId::stored("alice")
    }

    fn msat(amount: u64) -> Msat {
        Msat::new(amount).unwrap()
    }

    fn request(how: Ended, spent: u64) -> Entry {
        let record = Record {
            request_id: "req-1".to_owned(),
            route: "/chat/completions".to_owned(),
            model: "m".to_owned(),
            usage_source: Some(UsageSource::Upstream),
            usage: r#"{"output_tokens":2}"#.to_owned(),
            ..Record::default()
        };
        let what = What::Request {
            id: ReservationId::stored("r"),
            reserved: msat(9),
            spent: msat(spent),
            shortfall: Msat::ZERO,
            how,
            record,
        };
        Entry { at: UnixMs(1_999), what }
    }

    #[test]
    fn a_charge_is_told_as_the_history_has_it_and_what_cost_nothing_is_not() {
        let event = Event::of_entry(&alice(), 7, &request(Ended::Settled, 5)).unwrap();
        assert_eq!((event.kind, event.nth), (EventKind::PaymentSettled, Some(7)));
        let body: Value = serde_json::from_str(&event.body).unwrap();
        assert_eq!(
            body,
            json!({
                "id": event.id, "type": "payment.settled", "created_at": 1,
                "data": {
                    "account_id": "alice", "id": "r", "request_id": "req-1",
                    "route": "/chat/completions", "model": "m", "how": "settled",
                    "usage": {"output_tokens": 2}, "usage_source": "upstream",
                    "reserved_msats": 9, "cost_msats": 5, "shortfall_msats": 0,
                },
            })
        );
        assert!(Event::of_entry(&alice(), 7, &request(Ended::Expired, 5)).is_some());
        assert_eq!(Event::of_entry(&alice(), 7, &request(Ended::Settled, 0)), None);
        assert_eq!(Event::of_entry(&alice(), 7, &request(Ended::Released, 0)), None);
    }

    #[test]
    fn an_event_has_one_id_and_others_have_others() {
        let entry = request(Ended::Settled, 5);
        let id = |account: &str, nth| {
            Event::of_entry(&AccountId::stored(account), nth, &entry).unwrap().id
        };
        assert_eq!(id("alice", 7), id("alice", 8), "the number is where, not what");
        assert_ne!(id("alice", 7), id("parent", 7));
        let what = What::Deposit { id: DepositId::stored("r"), amount: msat(1) };
        let deposit = Event::of_entry(&alice(), 7, &Entry { at: UnixMs(0), what }).unwrap();
        assert_ne!(deposit.id, id("alice", 7));
        let low = |entries| Event::low(&alice(), entries, msat(1), msat(2), UnixMs(9)).id;
        assert_eq!(low(3), low(3));
        assert_ne!(low(3), low(4));
        let expired = |at| Event::expired(&alice(), at, UnixMs(9_000));
        assert_eq!(expired(UnixMs(5_000)).id.len(), 36);
        for (at, told) in [
            (UnixMs(5_000), r#""created_at":5,"data":{"account_id":"alice","revoked":false,"#),
            (REVOKED, r#""created_at":9,"data":{"account_id":"alice","revoked":true,"#),
        ] {
            assert!(expired(at).body.contains(told), "{}", expired(at).body);
        }
    }

    #[test]
    fn kinds_are_named_as_they_are_asked_for() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::named(kind.name()), Some(kind));
            assert_eq!(json!(kind), json!(kind.name()));
        }
        assert_eq!(EventKind::named("balance"), None);
    }
}
