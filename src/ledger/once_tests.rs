use std::time::Duration;

use super::super::book::Book;
use super::super::terms::Limits;
use super::super::{Deposit, Record};
use super::*;
use crate::ids::DepositId;

const NOW: UnixMs = UnixMs(1_000_000);

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn alice() -> AccountId {
    AccountId::stored("alice")
}

fn book() -> Book {
    let mut book = Book::default();
    let id = DepositId::stored("d1");
    book.deposit(Deposit { id, account: alice(), amount: msat(100) }, NOW).unwrap();
    book
}

fn once(fingerprint: &str) -> Once {
    Once { id: OnceId::stored("key"), fingerprint: fingerprint.to_owned() }
}

fn ask(reservation: &str, fingerprint: &str) -> Admission {
    Admission {
        reservation: ReservationId::stored(reservation),
        account: alice(),
        ceiling: msat(60),
        tokens: 10,
        lifetime: Duration::from_secs(60),
        limits: Limits { requests_per_minute: 1, ..Limits::NONE },
        once: Some(once(fingerprint)),
    }
}

fn denied(book: &mut Book, ask: &Admission, now: UnixMs) -> Option<Denied> {
    book.admit(ask, now).err().map(|denial| denial.denied)
}

fn end(book: &mut Book, reservation: &str, how: Ended, cost: u64) {
    let id = ReservationId::stored(reservation);
    book.end(&id, how, msat(cost), Record::default(), NOW).unwrap();
}

#[test]
fn a_request_is_made_once_whatever_the_balance_and_the_limits_leave() {
    let mut book = book();
    assert_eq!(denied(&mut book, &ask("r1", "a"), NOW), None);
    // Repeated under its own id it is the same admission.
    assert_eq!(denied(&mut book, &ask("r1", "a"), NOW), None);
    assert_eq!(denied(&mut book, &ask("r2", "a"), NOW), Some(Denied::InFlight));
    assert_eq!(denied(&mut book, &ask("r2", "b"), NOW), Some(Denied::Reused));
    end(&mut book, "r1", Ended::Settled, 60);
    assert_eq!(denied(&mut book, &ask("r2", "a"), NOW), Some(Denied::Served));
    assert_eq!(denied(&mut book, &ask("r2", "b"), NOW), Some(Denied::Reused));
    assert_eq!(book.account(&alice()).unwrap().available, msat(40));
}

#[test]
fn what_ended_for_nothing_is_as_if_nobody_had_asked() {
    let mut book = book();
    for (nth, how) in [Ended::Released, Ended::Expired].into_iter().enumerate() {
        let (first, now) = (format!("r{nth}"), NOW.plus(Duration::from_secs(60 * nth as u64)));
        assert_eq!(denied(&mut book, &ask(&first, "a"), now), None, "{how:?}");
        end(&mut book, &first, how, 0);
    }
    let minutes = Duration::from_secs(180);
    assert_eq!(denied(&mut book, &ask("r3", "another"), NOW.plus(minutes)), None);
    end(&mut book, "r3", Ended::Expired, 1);
    let again = ask("r4", "another");
    assert_eq!(denied(&mut book, &again, NOW.plus(minutes)), Some(Denied::Served));
}

#[test]
fn a_key_is_forgotten_when_its_time_is_over_and_not_before() {
    let mut book = book();
    assert_eq!(denied(&mut book, &ask("r1", "a"), NOW), None);
    end(&mut book, "r1", Ended::Settled, 1);
    let last = UnixMs(NOW.plus(ONCE_KEPT).0 - 1);
    assert_eq!(denied(&mut book, &ask("r2", "a"), last), Some(Denied::Served));
    assert_eq!(denied(&mut book, &ask("r2", "a"), NOW.plus(ONCE_KEPT)), None);
}

fn claim(attempt: &str, fingerprint: &str) -> Claim {
    Claim {
        account: alice(),
        once: once(fingerprint),
        attempt: AttemptId::stored(attempt),
        lease: Duration::from_secs(10),
        bytes_max: ONCE_BYTES + 4,
    }
}

fn keep(attempt: &str, answer: &[u8]) -> Keep {
    let (once, attempt) = (OnceId::stored("key"), AttemptId::stored(attempt));
    Keep { account: alice(), once, attempt, answer: answer.to_vec(), bytes_max: ONCE_BYTES + 4 }
}

fn ours(first: &str) -> Claimed {
    Claimed::Ours { first: AttemptId::stored(first) }
}

#[test]
fn a_claim_is_taken_over_when_its_executor_is_dead_and_answered_when_it_is_not() {
    let mut book = book();
    assert_eq!(book.claim(&claim("a1", "a"), NOW), ours("a1"));
    assert_eq!(book.claim(&claim("a1", "a"), NOW), ours("a1"), "its answer was lost");
    assert_eq!(book.claim(&claim("a2", "a"), NOW), Claimed::InFlight);
    assert_eq!(book.claim(&claim("a2", "b"), NOW), Claimed::Reused);
    let later = NOW.plus(Duration::from_secs(10));
    assert_eq!(book.claim(&claim("a2", "a"), later), ours("a1"));
    assert!(!book.keep(&keep("a1", b"late"), later), "another has taken over");
    assert!(book.keep(&keep("a2", b"done"), later));
    assert!(book.keep(&keep("a2", b"done"), later), "its answer was lost");
    assert_eq!(book.claim(&claim("a3", "a"), later), Claimed::Answered(b"done".to_vec()));
    assert_eq!(book.claim(&claim("a2", "a"), later), Claimed::Answered(b"done".to_vec()));
    book.forget(&OnceId::stored("key"), &AttemptId::stored("a2"));
    assert_eq!(book.kept(&OnceId::stored("key"), later), Some(b"done".to_vec()));
}

#[test]
fn a_claim_that_is_let_go_of_is_taken_over_at_once() {
    let mut book = book();
    assert_eq!(book.claim(&claim("a1", "a"), NOW), ours("a1"));
    let let_go = Claim { lease: Duration::ZERO, ..claim("a1", "a") };
    assert_eq!(book.claim(&let_go, NOW), ours("a1"));
    assert_eq!(book.claim(&claim("a2", "a"), NOW), ours("a1"));
    assert_eq!(book.claim(&claim("a3", "a"), NOW), Claimed::InFlight);
}

#[test]
fn a_claim_that_came_to_nothing_leaves_nothing() {
    let mut book = book();
    assert_eq!(book.claim(&claim("a1", "a"), NOW), ours("a1"));
    book.forget(&OnceId::stored("key"), &AttemptId::stored("a0"));
    assert_eq!(book.claim(&claim("a2", "a"), NOW), Claimed::InFlight);
    book.forget(&OnceId::stored("key"), &AttemptId::stored("a1"));
    assert_eq!(book.claim(&claim("a2", "b"), NOW), ours("a2"));
}

#[test]
fn an_account_has_no_more_kept_in_a_day_than_it_may() {
    let mut book = book();
    assert_eq!(book.claim(&claim("a1", "a"), NOW), ours("a1"));
    assert!(!book.keep(&keep("a1", b"12345"), NOW));
    assert!(book.keep(&keep("a1", b"1234"), NOW));
    let mut another = claim("a2", "a");
    another.once.id = OnceId::stored("another key");
    let retry_after = KEPT_WINDOW;
    assert_eq!(book.claim(&another, NOW), Claimed::TooMuch { retry_after });
    assert_eq!(book.claim(&another, NOW.plus(KEPT_WINDOW)), ours("a2"));
}

#[test]
fn a_key_is_for_one_kind_of_request() {
    let mut book = book();
    assert_eq!(book.claim(&claim("a1", "a"), NOW), ours("a1"));
    assert_eq!(denied(&mut book, &ask("r1", "a"), NOW), Some(Denied::Reused));
    book.forget(&OnceId::stored("key"), &AttemptId::stored("a1"));
    assert_eq!(denied(&mut book, &ask("r1", "a"), NOW), None);
    assert_eq!(book.claim(&claim("a2", "a"), NOW), Claimed::Reused);
}
