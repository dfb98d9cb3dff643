//! Tables an accountant can read, and random sequences that must conserve money.

use proptest::prelude::*;

use super::*;
use crate::ledger::Children;
use crate::ledger::terms::{Cap, Reset, Terms};
use crate::ledger::{Entry, What};

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn alice() -> AccountId {
    AccountId::stored("alice")
}

fn deposit(book: &mut Book, id: &str, amount: u64) {
    let deposit = Deposit { id: DepositId::stored(id), account: alice(), amount: msat(amount) };
    book.deposit(deposit, NOW).unwrap();
}

const NOW: UnixMs = UnixMs(0);

fn ask(key: &AccountId, id: &str, ceiling: u64) -> Admission {
    Admission {
        reservation: ReservationId::stored(id),
        account: key.clone(),
        ceiling: msat(ceiling),
        tokens: 10,
        lifetime: Duration::from_secs(1),
        limits: Limits::NONE,
        once: None,
    }
}

fn admit(book: &mut Book, id: &str, ceiling: u64) -> Result<Msat, Denied> {
    admitted(book, &ask(&alice(), id, ceiling), NOW)
}

/// Without where the key stands.
fn admitted(book: &mut Book, ask: &Admission, now: UnixMs) -> Result<Msat, Denied> {
    book.admit(ask, now).map(|(available, _)| available).map_err(|denial| denial.denied)
}

fn renewal(id: &str, accrued: u64) -> Renewal {
    Renewal {
        reservation: ReservationId::stored(id),
        account: alice(),
        lifetime: Duration::from_secs(2),
        accrued: msat(accrued),
    }
}

fn settle(book: &mut Book, id: &str, cost: u64) -> Receipt {
    book.end(&ReservationId::stored(id), Ended::Settled, msat(cost), Record::default(), NOW)
        .unwrap()
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
    assert_eq!(book.end(&id, Ended::Released, Msat::ZERO, Record::default(), NOW), Some(first));
    assert_eq!(book.expire(&id, UnixMs(u64::MAX), NOW), None);
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
    book.renew(&renewal("r1", 70), NOW);
    assert_eq!(book.expire(&id, UnixMs(1_999), NOW), None);
    assert_eq!(book.expire(&id, UnixMs(2_000), NOW).unwrap().spent, msat(70));
    check(&book, [430, 0, 70, 0, 0]);
}

#[test]
fn everything_is_refunded_in_whole_units_and_only_when_no_request_is_open() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 5_700);
    admit(&mut book, "r1", 1_000).unwrap();
    let denied = WithdrawalDenied::RequestsInProgress { open: 1 };
    assert_eq!(book.withdraw_begin(&everything("w1", 1_000), NOW), Err(denied));
    settle(&mut book, "r1", 100);
    let first = book.withdraw_begin(&everything("w1", 1_000), NOW).unwrap();
    assert_eq!(first.amount, msat(5_000));
    assert_eq!(book.withdraw_begin(&everything("w1", 1_000), NOW), Ok(first));
    check(&book, [600, 0, 100, 5_000, 0]);
    let small = WithdrawalDenied::TooSmall { available: msat(600) };
    assert_eq!(book.withdraw_begin(&everything("w2", 1_000), NOW), Err(small));
}

#[test]
fn a_withdrawal_can_be_undone_until_it_is_committed() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 5_000);
    let id = WithdrawalId::stored("w1");
    book.withdraw_begin(&everything("w1", 1_000), NOW).unwrap();
    book.withdraw_revert(&id).unwrap();
    check(&book, [5_000, 0, 0, 0, 0]);
    book.withdraw_begin(&everything("w1", 1_000), NOW).unwrap();
    book.withdraw_commit(&id);
    assert_eq!(book.withdraw_revert(&id), None);
    check(&book, [0, 0, 0, 5_000, 0]);
}

fn bob() -> AccountId {
    AccountId::stored("bob")
}

/// Alice with 1,000 msat, and her child Bob under these terms.
fn family(terms: Terms) -> Book {
    let mut book = Book::default();
    deposit(&mut book, "d1", 1_000);
    let children = Children { parent: alice(), accounts: vec![bob()], terms };
    book.open_children(&children).unwrap();
    book
}

#[test]
fn a_child_spends_its_parents_money_and_has_none_of_its_own() {
    let mut book = family(Terms::default());
    assert_eq!(admitted(&mut book, &ask(&bob(), "r1", 300), NOW), Ok(msat(700)));
    check(&book, [700, 300, 0, 0, 0]);
    settle(&mut book, "r1", 100);
    check(&book, [900, 0, 100, 0, 0]);
    let child = book.account(&bob()).unwrap();
    assert_eq!((child.usage.spent, child.requests), (msat(100), 1));
    assert_eq!((child.available, child.spent), (Msat::ZERO, Msat::ZERO));
    let to_bob = Deposit { id: DepositId::stored("d2"), account: bob(), amount: msat(50) };
    assert_eq!(book.deposit(to_bob, NOW).unwrap().available, msat(950), "it reaches the parent");
    let from_bob = WithdrawalAsk { account: bob(), ..everything("w1", 1) };
    assert_eq!(book.withdraw_begin(&from_bob, NOW), Err(WithdrawalDenied::Child));
}

#[test]
fn a_key_opened_again_keeps_its_terms() {
    let cap = Some(Cap { amount: msat(10), reset: Reset::Never });
    let mut book = family(Terms { cap, ..Terms::default() });
    let free = Opening { account: bob(), terms: Terms::default() };
    assert_eq!(book.open(&free).terms.cap, cap);
    let children = Children { parent: alice(), accounts: vec![bob()], terms: Terms::default() };
    book.open_children(&children).unwrap();
    assert_eq!(book.account(&bob()).unwrap().terms.cap, cap);
}

#[test]
fn a_cap_counts_what_is_held_and_forgets_what_was_spent_when_its_period_ends() {
    let cap = Some(Cap { amount: msat(400), reset: Reset::Daily });
    let mut book = family(Terms { cap, ..Terms::default() });
    book.admit(&ask(&bob(), "r1", 300), NOW).unwrap();
    let denied = Err(Denied::Capped { left: msat(100) });
    assert_eq!(admitted(&mut book, &ask(&bob(), "r2", 101), NOW), denied);
    assert_eq!(book.extend(&ReservationId::stored("r1"), msat(401), NOW), denied);
    assert_eq!(book.extend(&ReservationId::stored("r1"), msat(400), NOW), Ok(msat(600)));
    settle(&mut book, "r1", 390);
    let left = Err(Denied::Capped { left: msat(10) });
    assert_eq!(admitted(&mut book, &ask(&bob(), "r2", 11), NOW), left);
    let tomorrow = UnixMs(86_400_000);
    assert_eq!(admitted(&mut book, &ask(&bob(), "r2", 400), tomorrow), Ok(msat(210)));
    assert_eq!(
        admitted(&mut book, &ask(&bob(), "r3", 1), NOW),
        Err(Denied::Capped { left: Msat::ZERO })
    );
}

#[test]
fn an_expired_key_is_refused_from_its_last_millisecond_on() {
    let mut book = family(Terms { expires: Some(UnixMs(500)), ..Terms::default() });
    book.admit(&ask(&bob(), "r1", 1), UnixMs(499)).unwrap();
    assert_eq!(admitted(&mut book, &ask(&bob(), "r2", 1), UnixMs(500)), Err(Denied::Expired));
}

#[test]
fn limits_hold_at_the_bound_and_a_refusal_says_when_to_retry_and_counts_nothing() {
    let terms = Terms {
        requests_per_minute: Some(2),
        tokens_per_hour: Some(35),
        concurrent: Some(1),
        ..Terms::default()
    };
    let mut book = family(terms);
    let denied = |which, limit, seconds| {
        let retry_after = Duration::from_secs(seconds);
        Err(Denied::Limited(Limited { which, limit, retry_after }))
    };
    book.admit(&ask(&bob(), "r1", 1), UnixMs(1_000)).unwrap();
    let second = ask(&bob(), "r2", 1);
    assert_eq!(admitted(&mut book, &second, UnixMs(2_000)), denied(Limit::Concurrent, 1, 1));
    settle(&mut book, "r1", 1);
    book.admit(&second, UnixMs(2_000)).unwrap();
    let used = Record { input_tokens: 20, output_tokens: 6, ..Record::default() };
    book.end(&second.reservation, Ended::Settled, msat(1), used, UnixMs(3_000)).unwrap();
    let third = ask(&bob(), "r3", 1);
    assert_eq!(admitted(&mut book, &third, UnixMs(4_000)), denied(Limit::Requests, 2, 57));
    assert_eq!(admitted(&mut book, &third, UnixMs(61_000)), denied(Limit::Tokens, 35, 3_542));
    let nine = Admission { tokens: 9, ..third };
    book.admit(&nine, UnixMs(61_000)).unwrap();
    check(&book, [997, 1, 2, 0, 0]);
}

#[test]
fn an_answer_to_an_admission_says_where_the_key_stands_after_it() {
    let terms =
        Terms { requests_per_minute: Some(2), tokens_per_hour: Some(35), ..Terms::default() };
    let mut book = family(terms);
    let left = |standing: Standing| {
        let reset_s = standing.requests.reset_in.as_secs();
        (standing.requests.left, standing.tokens.left, reset_s)
    };
    let first = Admission { tokens: 30, ..ask(&bob(), "r1", 1) };
    let (_, standing) = book.admit(&first, UnixMs(1_000)).unwrap();
    assert_eq!((standing.requests.limit, standing.tokens.limit), (2, 35));
    assert_eq!(left(standing), (1, 5, 60));
    let (_, again) = book.admit(&first, UnixMs(2_000)).unwrap();
    assert_eq!(left(again), (1, 5, 59), "a repetition counts nothing");
    let refused = |denial: Denial| left(denial.standing.unwrap());
    let more = Admission { tokens: 6, ..ask(&bob(), "r2", 1) };
    assert_eq!(refused(book.admit(&more, UnixMs(3_000)).unwrap_err()), (1, 5, 58));
    let dear = Admission { tokens: 0, ..ask(&bob(), "r2", 5_000) };
    assert_eq!(refused(book.admit(&dear, UnixMs(3_000)).unwrap_err()), (1, 5, 58));
    let used = Record { input_tokens: 30, output_tokens: 9, ..Record::default() };
    book.end(&first.reservation, Ended::Settled, msat(1), used, UnixMs(4_000)).unwrap();
    let free = Admission { tokens: 0, ..ask(&bob(), "r2", 1) };
    let beyond = book.admit(&free, UnixMs(5_000)).unwrap_err();
    assert_eq!(refused(beyond), (1, 0, 56), "more was used than there was, and none is left");
    let nobody = Admission { account: AccountId::stored("nobody"), ..free };
    assert_eq!(book.admit(&nobody, NOW), Err(Denied::NoAccount.into()));
}

#[test]
fn an_extension_never_eats_another_reservation_and_a_repeated_one_changes_nothing() {
    let mut book = Book::default();
    deposit(&mut book, "d1", 500);
    admit(&mut book, "r1", 200).unwrap();
    admit(&mut book, "r2", 200).unwrap();
    let id = ReservationId::stored("r1");
    let denied = Denied::Insufficient { available: msat(100), account_idle: false };
    assert_eq!(book.extend(&id, msat(301), NOW), Err(denied));
    assert_eq!(book.extend(&id, msat(300), NOW), Ok(Msat::ZERO));
    assert_eq!(book.extend(&id, msat(300), NOW), Ok(Msat::ZERO));
    check(&book, [0, 500, 0, 0, 0]);
    settle(&mut book, "r1", 250);
    assert_eq!(book.extend(&id, msat(400), NOW), Err(Denied::AlreadyEnded));
    check(&book, [50, 200, 250, 0, 0]);
}

#[test]
fn a_parent_sees_what_its_children_asked_and_a_child_only_its_own() {
    let mut book = family(Terms::default());
    for (key, id, at) in [(alice(), "r1", 5), (bob(), "r2", 3), (bob(), "r3", 4)] {
        book.admit(&ask(&key, id, 10), UnixMs(1)).unwrap();
        let how = if id == "r3" { Ended::Released } else { Ended::Settled };
        let cost = if id == "r3" { Msat::ZERO } else { msat(4) };
        let id = ReservationId::stored(id);
        book.end(&id, how, cost, Record::default(), UnixMs(at)).unwrap();
    }
    let begun = book.withdraw_begin(&everything("w1", 1), UnixMs(6)).unwrap();
    let names = |book: &Book, of| -> Vec<String> {
        let name = |entry: Entry| match entry.what {
            What::Deposit { id, .. } => format!("{id} at {}", entry.at.0),
            What::Withdrawal { id, .. } => format!("{id} at {}", entry.at.0),
            What::Request { id, spent, .. } => format!("{id} for {spent} at {}", entry.at.0),
        };
        book.history(&of, None, 100).entries.into_iter().map(name).collect()
    };
    let requests = ["r3 for 0 msat at 4", "r2 for 4 msat at 3"];
    assert_eq!(names(&book, bob()), requests, "in the order in which they ended");
    let alices = |first: &[&'static str]| [first, &requests, &["r1 for 4 msat at 5"]].concat();
    assert_eq!(names(&book, alice())[..4], alices(&["w1 at 6"]));
    book.withdraw_revert(&begun.id);
    assert_eq!(names(&book, alice())[..3], alices(&[]), "what was put back never left");
    book.withdraw_begin(&everything("w1", 1), UnixMs(7)).unwrap();
    assert_eq!(names(&book, alice())[..4], alices(&["w1 at 7"]));
    assert_eq!(names(&book, AccountId::stored("nobody")), Vec::<String>::new());
}

#[derive(Clone, Debug)]
enum Command {
    Deposit(u8, u64),
    Admit(u8, u64),
    Extend(u8, u64),
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
        (id.clone(), amount.clone()).prop_map(|(id, amount)| Command::Extend(id, amount)),
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
        Command::Extend(id, amount) => {
            let _denied = book.extend(&reservation(id), msat(*amount), NOW);
        }
        Command::Renew(id, accrued) => book.renew(&renewal(&id.to_string(), *accrued), NOW),
        Command::Settle(id, cost) => {
            book.end(&reservation(id), Ended::Settled, msat(*cost), Record::default(), NOW);
        }
        Command::Release(id) => {
            book.end(&reservation(id), Ended::Released, Msat::ZERO, Record::default(), NOW);
        }
        Command::Expire(id, now) => drop(book.expire(&reservation(id), UnixMs(*now), NOW)),
        Command::Withdraw(id, amount) => {
            let mut ask = everything(&id.to_string(), 1_000);
            if let Some(amount) = amount {
                ask.amount = Amount::Exactly(msat(*amount));
            }
            drop(book.withdraw_begin(&ask, NOW));
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
            let amounts = book.deposits.values().map(|deposit| deposit.what.amount.get());
            let deposited: u64 = amounts.sum();
            let account = book.account(&alice()).cloned().unwrap_or_default();
            prop_assert_eq!(account.deposited.get(), deposited);
        }
    }

    #[test]
    fn paging_meets_every_entry_that_was_there_once_whatever_is_written_meanwhile(
        before in proptest::collection::vec(command(), 1..80),
        between in proptest::collection::vec(command(), 1..40),
        limit in 1..5u32,
    ) {
        let mut book = Book::default();
        before.iter().for_each(|command| run(&mut book, command));
        let there = book.history(&alice(), None, 100).entries;
        let (mut met, mut between) = (Vec::new(), between.iter());
        let mut page = book.history(&alice(), None, limit);
        while let Some(next) = page.next {
            prop_assert_eq!(page.entries.len(), usize::try_from(limit).unwrap());
            met.append(&mut page.entries);
            between.by_ref().take(3).for_each(|command| run(&mut book, command));
            page = book.history(&alice(), Some(next), limit);
        }
        met.append(&mut page.entries);
        // What was put back meanwhile need not be met.
        let stays = |entry: &&Entry| !matches!(entry.what, What::Withdrawal { .. });
        let there: Vec<&Entry> = there.iter().filter(stays).collect();
        prop_assert_eq!(met.iter().filter(stays).collect::<Vec<_>>(), there);
        let names: HashSet<String> = met.iter().map(|entry| format!("{:?}", entry.what)).collect();
        prop_assert_eq!(names.len(), met.len());
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
