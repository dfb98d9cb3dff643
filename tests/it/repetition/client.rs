//! A client that sends everything more than once, and often does not wait for the answer.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::body_of;
use crate::support::{Dice, Head, LOOK_AGAIN, Raw, Value, World, json, within};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create(String),
    TopUp(String),
    /// So many sats.
    Refund(u64),
    ChildKey,
    /// A request that is answered in one piece.
    Whole,
    Stream,
}

impl Operation {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::TopUp(_) => "topup",
            Self::Refund(_) => "refund",
            Self::ChildKey => "child-key",
            Self::Whole => "whole",
            Self::Stream => "stream",
        }
    }

    const fn path(&self) -> &'static str {
        match self {
            Self::Create(_) => "/v1/balance/create",
            Self::TopUp(_) => "/v1/balance/topup",
            Self::Refund(_) => "/v1/balance/refund",
            Self::ChildKey => "/v1/balance/child-key",
            Self::Whole | Self::Stream => "/v1/chat/completions",
        }
    }

    fn body(&self, name: &str) -> Value {
        match self {
            Self::Create(ecash) => json!({"initial_balance_token": ecash}),
            Self::TopUp(ecash) => json!({"cashu_token": ecash}),
            Self::Refund(sats) => json!({"amount_sats": sats}),
            Self::ChildKey => json!({"count": 1}),
            Self::Whole => body_of(name, false),
            Self::Stream => body_of(name, true),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) operations: u64,
    pub(super) sent: u64,
    pub(super) dropped: u64,
    pub(super) replayed: u64,
    pub(super) in_flight: u64,
    by_operation: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.sent += other.sent;
        self.dropped += other.dropped;
        self.replayed += other.replayed;
        self.in_flight += other.in_flight;
        for (kind, count) in &other.by_operation {
            *self.by_operation.entry(kind).or_default() += count;
        }
    }

    pub(super) fn by_operation(&self) -> &BTreeMap<&'static str, u64> {
        &self.by_operation
    }
}

/// An answer that was read whole.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) status: u16,
    replayed: bool,
    pub(super) body: String,
}

impl Read {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    fn is(&self, status: u16, code: &str) -> bool {
        self.status == status && self.json()["error"]["code"] == code
    }
}

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    Never,
    AtOnce,
    /// With the first byte of the answer.
    BeforeTheHead,
    AfterTheHead,
}

pub(super) struct Client {
    world: Arc<World>,
    nth: usize,
    pub(super) dice: Dice,
    pub(super) counts: Counts,
    /// Every ecash token that came back.
    pub(super) refunds: HashSet<String>,
}

impl Client {
    pub(super) fn new(world: Arc<World>, nth: usize) -> Self {
        let dice = Dice::new(0x0e1c_e000 + u64::try_from(nth).unwrap());
        Self { world, nth, dice, counts: Counts::default(), refunds: HashSet::new() }
    }

    /// What the last operation is called, also as its idempotency key.
    pub(super) fn name(&self) -> String {
        format!("client-{}-{}", self.nth, self.counts.operations)
    }

    /// Makes an operation, however often it takes. Answers what it was told in the end.
    pub(super) async fn make(&mut self, operation: Operation, key: &str) -> Read {
        self.counts.operations += 1;
        *self.counts.by_operation.entry(operation.kind()).or_default() += 1;
        let mut first: Option<Read> = None;
        let mut left_to_drop = self.drops();
        loop {
            let twice = self.dice.below(5) == 0;
            let leaves = self.leaves(&mut left_to_drop);
            let read = if twice {
                let other = self.leaves(&mut left_to_drop);
                let (one, two) = (self.prepared(leaves), self.prepared(other));
                let (name, world) = (self.name(), self.world.clone());
                let (one, two) = tokio::join!(
                    send(&world, &operation, key, &name, one),
                    send(&world, &operation, key, &name, two)
                );
                self.note(&mut first, &operation, one);
                self.note(&mut first, &operation, two)
            } else {
                let (prepared, name) = (self.prepared(leaves), self.name());
                let read = send(&self.world, &operation, key, &name, prepared).await;
                self.note(&mut first, &operation, read)
            };
            if let (Some(read), 0) = (read, left_to_drop) {
                return read;
            }
            // Also so that a request that is under way may end.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// How many answers of an operation are to be dropped before one is read.
    fn drops(&mut self) -> u64 {
        [0, 1, 1, 1, 2, 3][self.dice.index(6)]
    }

    fn leaves(&mut self, left_to_drop: &mut u64) -> Leaves {
        if *left_to_drop == 0 {
            return Leaves::Never;
        }
        *left_to_drop -= 1;
        *self.dice.pick(&[Leaves::AtOnce, Leaves::BeforeTheHead, Leaves::AfterTheHead])
    }

    fn prepared(&mut self, leaves: Leaves) -> Sending {
        self.counts.sent += 1;
        self.counts.dropped += u64::from(leaves != Leaves::Never);
        let (turn, nth) = (self.dice.index(2), self.counts.sent);
        // Not always in the moment of the last byte.
        let pause = self.dice.below(4);
        Sending { leaves, turn, nth, pause }
    }

    /// Holds an answer against those before. `None`: it says nothing yet.
    fn note(
        &mut self,
        first: &mut Option<Read>,
        operation: &Operation,
        read: Option<Read>,
    ) -> Option<Read> {
        let read = read?;
        self.counts.replayed += u64::from(read.replayed);
        match read.status {
            200 => {}
            409 if read.is(409, "idempotency_in_flight") => {
                self.counts.in_flight += 1;
                return None;
            }
            409 if *operation == Operation::Stream => {
                assert!(read.is(409, "idempotency_not_replayable"), "{read:?}");
                return Some(read);
            }
            // The ledger or the mint was late: whoever asks again is told what came of it.
            425 | 503 => return None,
            500 if read.is(500, "cashu_token_consumed") => return None,
            status => panic!("{status}: {} for {operation:?}", read.body),
        }
        match first {
            Some(first) => assert_eq!(first.body, read.body, "{operation:?}"),
            None => *first = Some(read.clone()),
        }
        Some(read)
    }
}

struct Sending {
    leaves: Leaves,
    turn: usize,
    nth: u64,
    pause: u64,
}

/// Sends it once. `None`: the answer was dropped, or broke off.
async fn send(
    world: &World,
    operation: &Operation,
    key: &str,
    name: &str,
    sending: Sending,
) -> Option<Read> {
    let mut raw = Raw::connect(world.gateway_of(sending.turn).address()).await;
    let credential = match operation {
        Operation::Create(_) => String::new(),
        _ => format!("authorization: Bearer {key}\r\n"),
    };
    let lines = format!(
        "{credential}idempotency-key: {name}\r\nx-request-id: {name}/{}\r\n\
         connection: close\r\n",
        sending.nth
    );
    raw.post(operation.path(), &lines, &operation.body(name).to_string()).await;
    match sending.leaves {
        Leaves::AtOnce => {
            for _ in 0..sending.pause {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            raw.reset();
            return None;
        }
        Leaves::BeforeTheHead => {
            within("an answer begins", raw.some(1)).await;
            raw.reset();
            return None;
        }
        Leaves::AfterTheHead | Leaves::Never => {}
    }
    let head = within("a head", raw.try_head()).await?;
    if sending.leaves == Leaves::AfterTheHead {
        raw.reset();
        return None;
    }
    read(&mut raw, &head).await
}

async fn read(raw: &mut Raw, head: &Head) -> Option<Read> {
    let body = if head.header("transfer-encoding").is_some() {
        let body = within("a body", raw.chunked()).await;
        body.complete.then_some(body.bytes)?
    } else {
        within("a body", raw.body(head)).await
    };
    Some(Read {
        status: head.status,
        replayed: head.header("idempotency-replayed").is_some(),
        body: String::from_utf8(body).unwrap(),
    })
}
