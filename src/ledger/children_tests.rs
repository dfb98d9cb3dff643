//! The rules of children on the book, and their bound on the embedded ledger. That the backends
//! agree step by step is `tests/sim/`.

use std::time::Duration;

use super::super::embedded::{Embedded, open_store};
use super::super::terms::{Cap, Limits, Reset};
use super::super::{Admission, Denied, Deposit, Ended, Ledger, Opening, Record};
use super::*;
use crate::clock::Clock;
use crate::ids::{DepositId, ReservationId};

const NOW: UnixMs = UnixMs(1_790_000_000_000);

fn id(name: &str) -> AccountId {
    AccountId::stored(name)
}

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn of(parent: &str, accounts: &[&str], terms: Terms) -> Children {
    Children { parent: id(parent), accounts: accounts.iter().copied().map(id).collect(), terms }
}

fn amend(book: &mut Book, parent: &str, child: &str, change: Change) -> Option<Account> {
    book.amend(&Amendment { parent: id(parent), child: id(child), change })
}

/// Alice and Mallory with 1,000 msat each, and Alice's children Bob and Carol under these terms.
fn family(terms: Terms) -> Book {
    let mut book = Book::default();
    for name in ["alice", "mallory"] {
        let deposit =
            Deposit { id: DepositId::stored(name), account: id(name), amount: msat(1_000) };
        book.deposit(deposit, NOW).unwrap();
    }
    let parent = book.open_children(&of("alice", &["carol", "bob"], terms)).unwrap();
    assert_eq!(parent.available, msat(1_000), "the parent is answered");
    book
}

fn capped(amount: u64) -> Terms {
    Terms { cap: Some(Cap { amount: msat(amount), reset: Reset::Daily }), ..Terms::default() }
}

fn ask(account: &str, reservation: &str, ceiling: u64) -> Admission {
    Admission {
        reservation: ReservationId::stored(reservation),
        account: id(account),
        ceiling: msat(ceiling),
        tokens: 0,
        lifetime: Duration::from_secs(60),
        limits: Limits::NONE,
        once: None,
    }
}

fn settle(book: &mut Book, reservation: &str, cost: u64) {
    let id = ReservationId::stored(reservation);
    book.end(&id, Ended::Settled, msat(cost), Record::default(), NOW).unwrap();
}

fn names(family: &Family) -> Vec<&str> {
    family.children.iter().map(|(id, _)| id.as_str()).collect()
}

/// What the book says of money alone.
fn admit(book: &mut Book, ask: &Admission, now: UnixMs) -> Result<Msat, Denied> {
    book.admit(ask, now).map(|(available, _)| available).map_err(|denial| denial.denied)
}

#[test]
fn a_parent_sees_its_children_and_a_child_only_who_pays() {
    let book = family(capped(400));
    let alices = book.family(&id("alice")).unwrap();
    assert_eq!(names(&alices), ["bob", "carol"]);
    assert_eq!(alices.parent, None);
    let bobs = book.family(&id("bob")).unwrap();
    assert_eq!(names(&bobs), [""; 0]);
    assert_eq!(bobs.parent.unwrap().available, msat(1_000));
    assert_eq!(book.family(&id("nobody")), None);
}

#[test]
fn a_child_and_a_nobody_have_no_children() {
    let mut book = family(Terms::default());
    for parent in ["bob", "nobody"] {
        let opened = book.open_children(&of(parent, &["dave"], Terms::default()));
        assert_eq!(opened, Err(NotOpened::NoParent), "{parent}");
        assert_eq!(book.account(&id("dave")), None);
    }
}

#[test]
fn an_account_that_exists_becomes_nobodys_child() {
    let mut book = family(Terms::default());
    book.open_children(&of("mallory", &["alice", "bob"], Terms::default())).unwrap();
    assert_eq!(names(&book.family(&id("mallory")).unwrap()), [""; 0]);
    assert_eq!(names(&book.family(&id("alice")).unwrap()), ["bob", "carol"]);
}

#[test]
fn only_its_parent_resets_or_revokes_a_child() {
    let mut book = family(capped(400));
    for change in [Change::ResetCap, Change::Revoke] {
        for (parent, child) in [
            ("mallory", "bob"),
            ("carol", "bob"),
            ("bob", "bob"),
            ("bob", "alice"),
            ("alice", "alice"),
            ("alice", "mallory"),
            ("alice", "nobody"),
        ] {
            assert_eq!(amend(&mut book, parent, child, change), None, "{parent} {child}");
        }
    }
    assert_eq!(admit(&mut book, &ask("bob", "r1", 400), NOW), Ok(msat(600)), "nothing has changed");
}

#[test]
fn a_cap_that_is_reset_forgets_what_was_spent_and_not_what_is_held() {
    let mut book = family(capped(400));
    admit(&mut book, &ask("bob", "r1", 300), NOW).unwrap();
    settle(&mut book, "r1", 250);
    admit(&mut book, &ask("bob", "r2", 100), NOW).unwrap();
    let left = |book: &Book| book.account(&id("bob")).unwrap().left_under_cap(NOW);
    assert_eq!(left(&book), Some(msat(50)));
    assert_eq!(
        admit(&mut book, &ask("bob", "r3", 51), NOW),
        Err(Denied::Capped { left: msat(50) }),
    );
    amend(&mut book, "alice", "bob", Change::ResetCap).unwrap();
    assert_eq!(left(&book), Some(msat(300)));
    assert_eq!(admit(&mut book, &ask("bob", "r4", 300), NOW), Ok(msat(350)));
    assert_eq!(book.account(&id("carol")).unwrap().left_under_cap(NOW), Some(msat(400)));
    assert_eq!(book.account(&id("alice")).unwrap().left_under_cap(NOW), None);
    assert_eq!(book.check_invariants(), Ok(()));
}

#[test]
fn a_revoked_child_is_never_served_again_and_ends_what_it_has_open() {
    let mut book = family(capped(400));
    admit(&mut book, &ask("bob", "r1", 300), NOW).unwrap();
    let revoked = amend(&mut book, "alice", "bob", Change::Revoke);
    assert_eq!(amend(&mut book, "alice", "bob", Change::Revoke), revoked, "once more is the same");
    assert_eq!(amend(&mut book, "alice", "bob", Change::ResetCap), None);
    assert_eq!(admit(&mut book, &ask("bob", "r2", 1), UnixMs(0)), Err(Denied::Expired));
    settle(&mut book, "r1", 120);
    let alice = book.family(&id("alice")).unwrap();
    assert_eq!(names(&alice), ["carol"]);
    assert_eq!((alice.account.available, alice.account.spent), (msat(880), msat(120)));
    book.open_children(&of("alice", &["bob"], Terms::default())).unwrap();
    assert_eq!(
        admit(&mut book, &ask("bob", "r3", 1), NOW),
        Err(Denied::Expired),
        "nor opened again"
    );
    assert_eq!(book.check_invariants(), Ok(()));
}

#[tokio::test]
async fn a_parent_has_so_many_children_and_one_that_is_revoked_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(&dir.path().join("ledger.db")).unwrap();
    check_bound(&Embedded::new(store, Clock::System), "").await;
}

/// On whichever ledger; `shard` is what the ids begin with.
pub(in crate::ledger) async fn check_bound<L: Ledger>(ledger: &L, shard: &str) {
    let id = |name: &str| AccountId::stored(format!("{shard}{name}"));
    let children = |names: std::ops::Range<usize>| Children {
        parent: id("parent"),
        accounts: names.map(|nth| id(&format!("child-{nth:03}"))).collect(),
        terms: Terms::default(),
    };
    ledger.open(Opening { account: id("parent"), terms: Terms::default() }).await.unwrap();
    ledger.open_children(children(0..CHILDREN_MAX - 1)).await.unwrap().unwrap();
    let beyond = children(CHILDREN_MAX - 1..CHILDREN_MAX + 1);
    let too_many = Err(NotOpened::TooMany { left: 1 });
    assert_eq!(ledger.open_children(beyond.clone()).await.unwrap(), too_many);
    for account in beyond.accounts {
        assert_eq!(ledger.account(account).await.unwrap(), None, "all of them or none");
    }
    ledger.open_children(children(CHILDREN_MAX - 1..CHILDREN_MAX)).await.unwrap().unwrap();
    ledger.open_children(children(0..CHILDREN_MAX)).await.unwrap().expect("all of them exist");
    let one_more = children(CHILDREN_MAX..CHILDREN_MAX + 1);
    let full = Err(NotOpened::TooMany { left: 0 });
    assert_eq!(ledger.open_children(one_more.clone()).await.unwrap(), full);
    let revoke = Amendment { parent: id("parent"), child: id("child-007"), change: Change::Revoke };
    ledger.amend(revoke).await.unwrap().unwrap();
    ledger.open_children(one_more).await.unwrap().unwrap();
    let family = ledger.family(id("parent")).await.unwrap().unwrap();
    assert_eq!(family.children.len(), CHILDREN_MAX);
    assert!(family.children.iter().all(|(child, _)| *child != id("child-007")));
}
