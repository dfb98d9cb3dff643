//! The ledger's rules under chance: the same seeded stories played on the book, on the embedded
//! ledger and on Redis.
//!
//! A story is random commands with repeated ids, lost answers, crashes and a clock that jumps
//! both ways. Every answer is held against the book's, and after every step the backend's own
//! rows are read: they must be what the book says, and no money may have been made or lost
//! whatever the book says. What goes wrong is told by its seed and in as few steps as can be.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod auditor;
mod command;
mod dice;
mod on_embedded;
mod on_redis;
mod oracle;
mod planted;
mod play;
mod seeds;
mod story;
mod subject;

use nutgate::ledger::redis::Scripts;
use on_embedded::OnEmbedded;
use on_redis::OnRedis;
use planted::{IN_EMBEDDED, IN_REDIS};
use play::Broken;
use seeds::{Plan, hunt, play_all};
use subject::InMemory;

#[test]
fn the_book_neither_makes_nor_loses_money() {
    play_all(&Plan::of(200), async || InMemory(None));
}

#[test]
fn the_embedded_ledger_does_what_the_book_does() {
    play_all(&Plan::of(200), async || OnEmbedded::default());
}

#[test]
fn redis_does_what_the_book_does() {
    play_all(&Plan::of(200), OnRedis::start);
}

#[test]
fn redis_does_what_the_book_does_though_it_is_killed() {
    play_all(&Plan::of(6), OnRedis::start_deadly);
}

#[test]
fn every_bug_planted_in_redis_is_seen() {
    let seen = hunt(IN_REDIS.len(), OnRedis::start, |subject, nth| {
        subject.scripts = Scripts::edited(&|file, source| IN_REDIS[nth].plant(file, source));
    });
    told(IN_REDIS.iter().map(|bug| bug.what), seen);
}

#[test]
fn every_bug_planted_in_the_embedded_ledger_is_seen() {
    let make = async || OnEmbedded::default();
    let seen = hunt(IN_EMBEDDED.len(), make, |subject, nth| {
        subject.planted = IN_EMBEDDED[nth].1;
    });
    told(IN_EMBEDDED.iter().map(|(what, _)| *what), seen);
}

/// Tells after which seed and step each bug was seen, and fails if one was not. That the same
/// seeds pass without a bug is what the tests above find.
#[expect(clippy::print_stdout, reason = "the table is what a reader of the test's output wants")]
fn told(bugs: impl Iterator<Item = &'static str>, seen: Vec<Option<(u64, Broken)>>) {
    let mut unseen = Vec::new();
    for (bug, seen) in bugs.zip(seen) {
        match seen {
            Some((seed, Broken { step, how })) => {
                let how: String = how.lines().next().unwrap_or_default().chars().take(80).collect();
                println!("| {bug} | seed {seed}, step {step} | {how} |");
            }
            None => unseen.push(bug),
        }
    }
    assert!(unseen.is_empty(), "not seen: {unseen:#?}");
}
