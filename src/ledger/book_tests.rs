//! Tables an accountant can read, and random sequences that must conserve money.

use proptest::prelude::*;

use super::*;

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn alice() -> AccountId {
    AccountId::stored("alice")
}

fn deposit(book: &mut Book, id: &str, amount: u64) {
    let deposit = Deposit { id: DepositId::stored(id), account: alice(), amount: msat(amount) };
    book.deposit(deposit).unwrap();
}

fn admit(book: &mut Book, id: &str, ceiling: u64) -> Result<Msat, Denied> {
    book.admit(&Admission {
        reservation: ReservationId::stored(id),
        account: alice(),
        ceiling: msat(ceiling),
        deadline: UnixMs(1_000),
    })
}

fn settle(book: &mut Book, id: &str, cost: u64) -> Receipt {
    book.end(&ReservationId::stored(id), Ended::Settled, msat(cost), Record::default()).unwrap()
}

fn everything(id: &str, unit: u64) -> WithdrawalAsk {
    WithdrawalAsk {
        id: WithdrawalId::stored(id),
        account: alice(),
        amount: Amount::Everything { unit: msat(unit) },
        mint: "http://mint".to_owned(),
        unit: "sat".to_owned(),
    }
}

/// available, reserved, spent, refunded, shortfall
#[track_caller]
fn check(book: &Book, expect: [u64; 5]) {
    let account = book.account(&alice()).unwrap();
    let parts =
        [account.available, account.reserved, account.spent, account.refunded, account.shortfall];
    assert_eq!(parts.map(Msat::get), expect);
    book.check_invariants().unwrap();
}

#[test]
fn a_deposit_counts_once_however_often_it_is_repeated() {
    let mut book = Book::default();
    for _ in 0..3 {
        deposit(&mut book, "d1", 500);
    }
    check(&book, [500, 0, 0, 0, 0]);
}

#[test]
fn a_reservation_sets_aside_and_a_settle_returns_the_rest() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 500);
    assert_eq!(admit(&mut book, "r1", 300), Ok(msat(200)));
    check(&book, [200, 300, 0, 0, 0]);
    let receipt = settle(&mut book, "r1", 120);
    assert_eq!((receipt.spent, receipt.returned), (msat(120), msat(180)));
    check(&book, [380, 0, 120, 0, 0]);
}

#[test]
fn a_reservation_ends_once_and_the_first_end_counts() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 500);
    admit(&mut book, "r1", 300).unwrap();
    let first = settle(&mut book, "r1", 120);
    assert_eq!(settle(&mut book, "r1", 300), first);
    let id = ReservationId::stored("r1");
    assert_eq!(book.end(&id, Ended::Released, Msat::ZERO, Record::default()), Some(first));
    assert_eq!(book.expire(&id, UnixMs(u64::MAX)), None);
    check(&book, [380, 0, 120, 0, 0]);
    assert_eq!(admit(&mut book, "r1", 1), Err(Denied::AlreadyEnded));
}

#[test]
fn a_cost_above_the_reservation_takes_what_is_available_and_no_other_reservation() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 500);
    admit(&mut book, "r1", 200).unwrap();
    admit(&mut book, "r2", 250).unwrap();
    let receipt = settle(&mut book, "r1", 400);
    assert_eq!((receipt.spent, receipt.shortfall), (msat(250), msat(150)));
    check(&book, [0, 250, 250, 0, 150]);
}

#[test]
fn the_last_millisatoshi_can_be_reserved_and_not_one_more() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 500);
    let denied = Denied::Insufficient { available: msat(500), account_idle: true };
    assert_eq!(admit(&mut book, "r0", 501), Err(denied));
    assert_eq!(admit(&mut book, "r1", 500), Ok(Msat::ZERO));
    check(&book, [0, 500, 0, 0, 0]);
}

#[test]
fn an_expiry_waits_for_the_deadline_and_charges_what_accrued() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 500);
    admit(&mut book, "r1", 300).unwrap();
    let id = ReservationId::stored("r1");
    let renewal = Renewal { reservation: id.clone(), deadline: UnixMs(2_000), accrued: msat(70) };
    book.renew(&renewal);
    assert_eq!(book.expire(&id, UnixMs(1_999)), None);
    assert_eq!(book.expire(&id, UnixMs(2_000)).unwrap().spent, msat(70));
    check(&book, [430, 0, 70, 0, 0]);
}

#[test]
fn everything_is_refunded_in_whole_units_and_only_when_no_request_is_open() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 5_700);
    admit(&mut book, "r1", 1_000).unwrap();
    let denied = WithdrawalDenied::RequestsInProgress { open: 1 };
    assert_eq!(book.withdraw_begin(&everything("w1", 1_000)), Err(denied));
    settle(&mut book, "r1", 100);
    let first = book.withdraw_begin(&everything("w1", 1_000)).unwrap();
    assert_eq!(first.amount, msat(5_000));
    assert_eq!(book.withdraw_begin(&everything("w1", 1_000)), Ok(first));
    check(&book, [600, 0, 100, 5_000, 0]);
    let small = WithdrawalDenied::TooSmall { available: msat(600) };
    assert_eq!(book.withdraw_begin(&everything("w2", 1_000)), Err(small));
}

#[test]
fn a_withdrawal_can_be_undone_until_it_is_committed() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 5_000);
    let id = WithdrawalId::stored("w1");
    book.withdraw_begin(&everything("w1", 1_000)).unwrap();
    book.withdraw_revert(&id).unwrap();
    check(&book, [5_000, 0, 0, 0, 0]);
    book.withdraw_begin(&everything("w1", 1_000)).unwrap();
    book.withdraw_commit(&id);
    assert_eq!(book.withdraw_revert(&id), None);
    check(&book, [0, 0, 0, 5_000, 0]);
}

#[derive(Clone, Debug)]
enum Command {
    Deposit(u8, u64),
    Admit(u8, u64),
    Renew(u8, u64),
    Settle(u8, u64),
    Release(u8),
    Expire(u8, u64),
    Withdraw(u8, Option<u64>),
    Commit(u8),
    Revert(u8),
}

fn command() -> impl Strategy<Value = Command> {
    let id = 0..12u8;
    let amount = 0..4_000u64;
    prop_oneof![
        (id.clone(), amount.clone()).prop_map(|(id, amount)| Command::Deposit(id, amount)),
        (id.clone(), amount.clone()).prop_map(|(id, amount)| Command::Admit(id, amount)),
        (id.clone(), amount.clone()).prop_map(|(id, amount)| Command::Renew(id, amount)),
        (id.clone(), amount.clone()).prop_map(|(id, amount)| Command::Settle(id, amount)),
        id.clone().prop_map(Command::Release),
        (id.clone(), amount.clone()).prop_map(|(id, now)| Command::Expire(id, now)),
        (id.clone(), proptest::option::of(amount)).prop_map(|(id, a)| Command::Withdraw(id, a)),
        id.clone().prop_map(Command::Commit),
        id.prop_map(Command::Revert),
    ]
}

fn run(book: &mut Book, command: &Command) {
    let reservation = |id: &u8| ReservationId::stored(id.to_string());
    let withdrawal = |id: &u8| WithdrawalId::stored(id.to_string());
    match command {
        Command::Deposit(id, amount) => deposit(book, &id.to_string(), *amount),
        Command::Admit(id, ceiling) => drop(admit(book, &id.to_string(), *ceiling)),
        Command::Renew(id, accrued) => book.renew(&Renewal {
            reservation: reservation(id),
            deadline: UnixMs(2_000),
            accrued: msat(*accrued),
        }),
        Command::Settle(id, cost) => {
            book.end(&reservation(id), Ended::Settled, msat(*cost), Record::default());
        }
        Command::Release(id) => {
            book.end(&reservation(id), Ended::Released, Msat::ZERO, Record::default());
        }
        Command::Expire(id, now) => drop(book.expire(&reservation(id), UnixMs(*now))),
        Command::Withdraw(id, amount) => {
            let mut ask = everything(&id.to_string(), 1_000);
            if let Some(amount) = amount {
                ask.amount = Amount::Exactly(msat(*amount));
            }
            drop(book.withdraw_begin(&ask));
        }
        Command::Commit(id) => book.withdraw_commit(&withdrawal(id)),
        Command::Revert(id) => drop(book.withdraw_revert(&withdrawal(id))),
    }
}

proptest! {
    #[test]
    fn money_is_conserved_by_any_sequence(commands in proptest::collection::vec(command(), 1..80)) {
        let mut book = Book::default();
        for command in &commands {
            run(&mut book, command);
            prop_assert_eq!(book.check_invariants(), Ok(()), "after {:?}", command);
            let deposited: u64 = book.deposits.values().map(|deposit| deposit.amount.get()).sum();
            let account = book.account(&alice()).cloned().unwrap_or_default();
            prop_assert_eq!(account.deposited.get(), deposited);
        }
    }

    #[test]
    fn a_repeated_command_changes_nothing(commands in proptest::collection::vec(command(), 1..40)) {
        let mut book = Book::default();
        for command in &commands {
            run(&mut book, command);
            let once = book.account(&alice()).cloned();
            // A revert that was repeated after a new begin is a new command, not a repetition.
            run(&mut book, command);
            prop_assert_eq!(book.account(&alice()).cloned(), once, "{:?}", command);
        }
    }
}
