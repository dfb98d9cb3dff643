//! The spool over a ledger that can be switched off: whatever is told late is told once.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::super::embedded::{self, Embedded};
use super::super::once::{Claim, Claimed, Keep};
use super::super::terms::Limits;
use super::super::{
    Account, Admission, Admitted, Amendment, Children, Cursor, Denial, Denied, Deposit, Family,
    Live, NotOpened, Opening, Page, Receipt, Renewal, Unavailable, What, Withdrawal, WithdrawalAsk,
    WithdrawalDenied, reaper,
};
use super::*;
use crate::clock::Clock;
use crate::ids::{AttemptId, DepositId, OnceId, WithdrawalId};

/// An embedded ledger behind a switch.
#[derive(Clone)]
struct Switch {
    ledger: Embedded,
    at: Arc<AtomicU8>,
    /// How often it was to end something, and what it was told to end.
    asked: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<ReservationId>>>,
}

/// Asks and answers.
const ON: u8 = 0;
/// Is not even asked.
const OFF: u8 = 1;
/// Is asked, and its answers are lost.
const MUTE: u8 = 2;

impl Switch {
    fn turn(&self, to: u8) {
        self.at.store(to, Ordering::SeqCst);
    }

    fn is(&self, at: u8) -> bool {
        self.at.load(Ordering::SeqCst) == at
    }

    async fn through<T>(
        &self,
        verb: impl Future<Output = Result<T, Unavailable>> + Send,
    ) -> Result<T, Unavailable> {
        let silent = || Unavailable("switched off".to_owned());
        if self.is(OFF) {
            return Err(silent());
        }
        let answer = verb.await;
        if self.is(MUTE) { Err(silent()) } else { answer }
    }

    async fn told(&self, reservation: Reservation, end: End) -> Result<Receipt, Unsettled> {
        let silent = |reservation| {
            let why = Unavailable("switched off".to_owned());
            Err(Unsettled::NoAnswer { reservation, why })
        };
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is(OFF) {
            return silent(reservation);
        }
        let (id, account, amount) =
            (reservation.id.clone(), reservation.account.clone(), reservation.amount);
        self.told.lock().unwrap().push(id.clone());
        let receipt = self.ledger.end(reservation, end).await;
        if self.is(MUTE) {
            return silent(Reservation::open(id, account, amount, self.live()));
        }
        receipt
    }
}

impl Ledger for Switch {
    fn live(&self) -> &Live {
        self.ledger.live()
    }
    async fn open(&self, opening: Opening) -> Result<Account, Unavailable> {
        self.through(self.ledger.open(opening)).await
    }
    async fn open_children(
        &self,
        children: Children,
    ) -> Result<Result<Account, NotOpened>, Unavailable> {
        self.through(self.ledger.open_children(children)).await
    }
    async fn amend(&self, amendment: Amendment) -> Result<Option<Account>, Unavailable> {
        self.through(self.ledger.amend(amendment)).await
    }
    async fn family(&self, account: AccountId) -> Result<Option<Family>, Unavailable> {
        self.through(self.ledger.family(account)).await
    }
    async fn deposit(&self, deposit: Deposit) -> Result<Account, Unavailable> {
        self.through(self.ledger.deposit(deposit)).await
    }
    async fn admit(&self, ask: Admission) -> Result<Result<Admitted, Denial>, Unavailable> {
        self.through(self.ledger.admit(ask)).await
    }
    async fn extend(
        &self,
        reservation: &mut Reservation,
        amount: Msat,
    ) -> Result<Result<Msat, Denied>, Unavailable> {
        self.through(self.ledger.extend(reservation, amount)).await
    }
    async fn renew(&self, renewals: Vec<Renewal>) -> Result<(), Unavailable> {
        self.through(self.ledger.renew(renewals)).await
    }
    async fn end(&self, reservation: Reservation, end: End) -> Result<Receipt, Unsettled> {
        self.told(reservation, end).await
    }
    async fn expire(&self) -> Result<Vec<Receipt>, Unavailable> {
        self.through(self.ledger.expire()).await
    }
    async fn withdraw_begin(
        &self,
        ask: WithdrawalAsk,
    ) -> Result<Result<Withdrawal, WithdrawalDenied>, Unavailable> {
        self.through(self.ledger.withdraw_begin(ask)).await
    }
    async fn withdraw_commit(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<(), Unavailable> {
        self.through(self.ledger.withdraw_commit(account, id)).await
    }
    async fn withdraw_revert(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<(), Unavailable> {
        self.through(self.ledger.withdraw_revert(account, id)).await
    }
    async fn withdrawal(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<Option<Withdrawal>, Unavailable> {
        self.through(self.ledger.withdrawal(account, id)).await
    }
    async fn withdrawals_open(&self) -> Result<Vec<Withdrawal>, Unavailable> {
        self.through(self.ledger.withdrawals_open()).await
    }
    async fn claim(&self, claim: Claim) -> Result<Claimed, Unavailable> {
        self.through(self.ledger.claim(claim)).await
    }
    async fn keep(&self, keep: Keep) -> Result<bool, Unavailable> {
        self.through(self.ledger.keep(keep)).await
    }
    async fn forget(
        &self,
        account: AccountId,
        once: OnceId,
        attempt: AttemptId,
    ) -> Result<(), Unavailable> {
        self.through(self.ledger.forget(account, once, attempt)).await
    }
    async fn kept(&self, account: AccountId, once: OnceId) -> Result<Option<Vec<u8>>, Unavailable> {
        self.through(self.ledger.kept(account, once)).await
    }
    async fn account(&self, account: AccountId) -> Result<Option<Account>, Unavailable> {
        self.through(self.ledger.account(account)).await
    }
    async fn history(
        &self,
        account: AccountId,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page, Unavailable> {
        self.through(self.ledger.history(account, before, limit)).await
    }
}

/// A ledger's database and a spool's directory, and the processes that come and go over them.
struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    clock: Clock,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = embedded::open_store(&dir.path().join("ledger.db")).unwrap();
        Self { dir, store, clock: Clock::manual(UnixMs(1_000_000)) }
    }

    /// What a process knows when it starts: nothing but what is on disk.
    fn ledger(&self) -> Switch {
        let ledger = Embedded::new(self.store.clone(), self.clock.clone());
        Switch { ledger, at: Arc::default(), asked: Arc::default(), told: Arc::default() }
    }

    async fn spool(&self, ledger: &Switch) -> Spool<Switch> {
        self.spool_of(ledger, ENTRIES_MAX).await
    }

    async fn spool_of(&self, ledger: &Switch, entries_max: usize) -> Spool<Switch> {
        loop {
            // The store of a spool just dropped lets go of its lock a moment later.
            let file = self.dir.path().join(FILE);
            match Spool::with(&file, ledger.clone(), entries_max).await {
                Ok(spool) => return spool,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn alice() -> AccountId {
    AccountId::stored("alice")
}

/// Deposits 1000 msat.
async fn fund(ledger: &Switch) {
    let id = DepositId::stored("deposit");
    ledger.deposit(Deposit { id, account: alice(), amount: msat(1000) }).await.unwrap();
}

async fn admit(ledger: &Switch, ceiling: u64) -> Reservation {
    let ask = Admission {
        reservation: ReservationId::fresh(),
        account: alice(),
        ceiling: msat(ceiling),
        tokens: 0,
        lifetime: LIFETIME,
        limits: Limits::NONE,
        once: None,
    };
    ledger.admit(ask).await.unwrap().unwrap().reservation
}

fn settle(cost: u64) -> End {
    let record = Record {
        request_id: "req-1".to_owned(),
        model: "m".to_owned(),
        usage_source: Some(UsageSource::Estimated),
        input_tokens: 3,
        output_tokens: 2,
        usage: r#"{"images":1}"#.to_owned(),
        route: "/images".to_owned(),
    };
    End::Settle { cost: msat(cost), record }
}

fn released() -> End {
    let record = Record { request_id: "req-2".to_owned(), ..Record::default() };
    End::Release { record }
}

/// Ends it as the edge does.
async fn end(ledger: &Switch, spool: &Spool<Switch>, reservation: Reservation, end: End) {
    match ledger.end(reservation, end.clone()).await {
        Err(Unsettled::NoAnswer { reservation, .. }) => spool.keep(reservation, end).await,
        answered => panic!("{answered:?}"),
    }
}

/// Runs the spool until it is empty.
async fn drain(spool: &Spool<Switch>) {
    let empty = async {
        while spool.entries() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = spool.clone().run() => {}
        () = empty => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("{:?}", spool.entries()),
    }
}

async fn parts(ledger: &Switch) -> [u64; 3] {
    let account = ledger.ledger.account(alice()).await.unwrap().unwrap();
    [account.available, account.reserved, account.spent].map(Msat::get)
}

#[tokio::test]
async fn an_end_without_an_answer_is_recorded_when_the_ledger_is_back() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let spool = bench.spool(&ledger).await;
    fund(&ledger).await;
    let (one, two) = (admit(&ledger, 300).await, admit(&ledger, 200).await);
    let ids = [one.id.clone(), two.id.clone()];
    ledger.turn(OFF);
    end(&ledger, &spool, one, settle(120)).await;
    end(&ledger, &spool, two, released()).await;
    assert_eq!((spool.entries(), ledger.live().open_count()), (2, 2));
    assert_eq!(parts(&ledger).await, [500, 500, 0]);
    ledger.turn(ON);
    drain(&spool).await;
    assert_eq!(parts(&ledger).await, [880, 0, 120]);
    assert_eq!(*ledger.told.lock().unwrap(), ids, "oldest first, each once");
    assert_eq!((spool.oldest(), ledger.live().open_count()), (Duration::ZERO, 0));
}

#[tokio::test]
async fn what_waits_is_told_when_the_ledger_answers_again_and_nobody_has_to_say_so() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let spool = bench.spool(&ledger).await;
    fund(&ledger).await;
    let reservation = admit(&ledger, 300).await;
    ledger.turn(OFF);
    end(&ledger, &spool, reservation, settle(120)).await;
    let back = async {
        let asked = ledger.asked.load(Ordering::SeqCst);
        // Some attempts in vain, with a pause between them.
        while ledger.asked.load(Ordering::SeqCst) < asked + 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(spool.entries(), 1);
        assert!(spool.oldest() > Duration::ZERO);
        ledger.turn(ON);
    };
    tokio::join!(drain(&spool), back);
    assert_eq!(parts(&ledger).await, [880, 0, 120]);
}

#[tokio::test]
async fn the_next_process_tells_what_the_last_one_could_not() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    fund(&ledger).await;
    {
        let spool = bench.spool(&ledger).await;
        let (one, two) = (admit(&ledger, 300).await, admit(&ledger, 200).await);
        ledger.turn(OFF);
        end(&ledger, &spool, one, settle(120)).await;
        end(&ledger, &spool, two, released()).await;
    }
    let ledger = bench.ledger();
    let spool = bench.spool(&ledger).await;
    assert_eq!((spool.entries(), ledger.live().open_count()), (2, 2), "alive before it listens");
    // Long after their deadlines: what waits is renewed with its cost before anything expires.
    bench.clock.set(UnixMs(1_000_000).plus(LIFETIME * 2));
    assert!(reaper::tick(&ledger, LIFETIME, true).await);
    assert_eq!(parts(&ledger).await, [500, 500, 0]);
    drain(&spool).await;
    assert_eq!(parts(&ledger).await, [880, 0, 120]);
    let page = ledger.history(alice(), None, 2).await.unwrap();
    let records = page.entries.into_iter().map(|entry| match entry.what {
        What::Request { record, .. } => record,
        what => panic!("{what:?}"),
    });
    let told: Vec<Record> = records.rev().collect();
    assert_eq!(told, [settle(120).into_record(), released().into_record()]);

    drop(spool);
    let nothing = bench.spool(&bench.ledger()).await;
    assert_eq!(nothing.entries(), 0, "what is recorded is gone from the disk");
}

#[tokio::test]
async fn an_end_whose_answer_was_lost_is_told_again_and_counts_once() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let spool = bench.spool(&ledger).await;
    fund(&ledger).await;
    let reservation = admit(&ledger, 300).await;
    let id = reservation.id.clone();
    ledger.turn(MUTE);
    end(&ledger, &spool, reservation, settle(120)).await;
    assert_eq!(parts(&ledger).await, [880, 0, 120], "it has happened");
    ledger.turn(ON);
    drain(&spool).await;
    assert_eq!(parts(&ledger).await, [880, 0, 120]);
    assert_eq!(*ledger.told.lock().unwrap(), [id.clone(), id]);
}

#[tokio::test]
async fn an_end_that_no_ledger_knows_of_does_not_wait_for_ever() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let spool = bench.spool(&ledger).await;
    fund(&ledger).await;
    let id = ReservationId::fresh();
    let lost = Reservation::open(id, alice(), msat(300), ledger.live());
    spool.keep(lost, settle(120)).await;
    drain(&spool).await;
    assert_eq!(parts(&ledger).await, [1000, 0, 0]);
    assert_eq!(ledger.live().open_count(), 0);
}

#[tokio::test]
async fn beyond_its_bound_an_end_is_left_to_the_reaper_at_its_cost() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let spool = bench.spool_of(&ledger, 1).await;
    fund(&ledger).await;
    let (one, two) = (admit(&ledger, 300).await, admit(&ledger, 200).await);
    ledger.turn(OFF);
    end(&ledger, &spool, one, settle(120)).await;
    end(&ledger, &spool, two, settle(50)).await;
    assert_eq!(spool.entries(), 1);
    ledger.turn(ON);
    assert!(reaper::tick(&ledger, LIFETIME, true).await);
    assert_eq!(parts(&ledger).await, [650, 300, 50]);
    drain(&spool).await;
    assert_eq!(parts(&ledger).await, [830, 0, 170]);
}

const LIFETIME: Duration = Duration::from_secs(60);
