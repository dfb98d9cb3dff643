//! Fresh ecash, spent in one of the ways in which a request is paid, and counted to the last
//! msat afterwards.

use serde_json::Value;

use super::{Answer, Key, Pay, World};

/// How a request is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the key that was created from the Cashu token.
    Key,
    /// By the Cashu token itself, as a bearer credential.
    Bearer,
    XCashu,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Key, Self::Bearer, Self::XCashu];
    /// Paying by a Cashu token as bearer ends as paying by key does, once it is redeemed.
    pub(crate) const BOTH: [Self; 2] = [Self::Key, Self::XCashu];
}

/// A fresh Cashu token of [`PURSE_SATS`] sats, and the way in which it is spent.
#[derive(Clone, Debug)]
pub(crate) struct Purse {
    pub(crate) way: Way,
    pub(crate) ecash: String,
    /// The key of the account that the token opens.
    pub(crate) key: Key,
}

impl Purse {
    pub(crate) fn pay(&self) -> Pay<'_> {
        match self.way {
            Way::Key => Pay::Bearer(&self.key.0),
            Way::Bearer => Pay::Bearer(&self.ecash),
            Way::XCashu => Pay::XCashu(&self.ecash),
        }
    }
}

impl World {
    pub(crate) async fn purse(&self, way: Way) -> Purse {
        let ecash = self.sats(PURSE_SATS).await;
        let key = match way {
            Way::Key => self.key_of(&ecash).await,
            Way::Bearer | Way::XCashu => Key::of(&ecash),
        };
        Purse { way, ecash, key }
    }

    /// Buys one chat completion with fresh ecash. Answers with what it cost, see [`Self::cost`].
    pub(crate) async fn buy(&self, way: Way, body: &Value) -> (Answer, u64) {
        let purse = self.purse(way).await;
        let answer = self.chat(purse.pay(), body).await;
        let cost = self.cost(&purse, Some(&answer)).await;
        (answer, cost)
    }

    /// What the requests that this purse paid for have cost, once all of them have ended.
    ///
    /// Asserts that nothing was lost and nothing made: cost, what is left on the account, and
    /// what the change is worth in a fresh wallet are what the purse held. Change in the head
    /// of `answer` must be that which a claim answers with.
    pub(crate) async fn cost(&self, purse: &Purse, answer: Option<&Answer>) -> u64 {
        let balance = self.settled(&purse.key).await;
        if purse.way != Way::XCashu {
            assert_eq!(balance.available + balance.spent, PURSE_SATS * 1000, "{purse:?}");
            assert_eq!(answer.and_then(Answer::change), None, "change is for X-Cashu");
            return balance.spent;
        }
        let claimed = self.claim(&purse.ecash).await.expect(200);
        let change = claimed.json()["token"].as_str().unwrap().to_owned();
        if let Some(in_head) = answer.and_then(Answer::change) {
            assert_eq!(in_head, change, "a claim repeats the change");
        }
        let left = self.settled(&purse.key).await;
        assert!(left.available < 1000, "all whole sats are in the change: {left:?}");
        let worth = self.worth(&change).await * 1000;
        assert_eq!(worth + left.available + left.spent, PURSE_SATS * 1000, "{purse:?}");
        left.spent
    }
}

/// Enough for any request of the tests.
pub(crate) const PURSE_SATS: u64 = 1000;
