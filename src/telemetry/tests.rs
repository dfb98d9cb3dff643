//! What is measured, and that alerts name nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, UnixMs};
use crate::config::{Config, Machine};
use crate::ids::{AccountId, DepositId, ReservationId};
use crate::ledger::embedded::{Embedded, open_store};
use crate::ledger::terms::Limits;
use crate::ledger::{Admission, Deposit, Record, Reservation};
use crate::upstream::{Failure, Outcome};

const RULES: &str = include_str!("../../deploy/prometheus/rules.yml");

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn alice() -> AccountId {
    AccountId::stored("alice")
}

async fn ledger(dir: &tempfile::TempDir, clock: &Clock, metrics: &Metrics) -> Counted<Embedded> {
    let store = open_store(&dir.path().join("db")).unwrap();
    let ledger = Counted::new(Embedded::new(store, clock.clone()), metrics.clone());
    let id = DepositId::stored("deposit");
    ledger.deposit(Deposit { id, account: alice(), amount: msat(1000) }).await.unwrap();
    ledger
}

async fn admit(ledger: &Counted<Embedded>, ceiling: u64) -> Reservation {
    let ask = Admission {
        reservation: ReservationId::fresh(),
        account: alice(),
        ceiling: msat(ceiling),
        tokens: 0,
        lifetime: Duration::from_secs(60),
        limits: Limits::NONE,
        once: None,
    };
    ledger.admit(ask).await.unwrap().unwrap().reservation
}

#[track_caller]
fn check(metrics: &Metrics, series: &str, value: u64) {
    let text = metrics.text();
    let line = format!("{series} {value}");
    assert!(text.lines().any(|given| given == line), "no {line} in\n{text}");
}

#[tokio::test]
async fn every_end_is_counted_by_how_it_came_with_what_it_could_not_cover() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(UnixMs(1_000_000));
    let metrics = Metrics::default();
    let ledger = ledger(&dir, &clock, &metrics).await;
    metrics.watch(&ledger, None);
    let (one, two, three) =
        (admit(&ledger, 300).await, admit(&ledger, 300).await, admit(&ledger, 300).await);
    check(&metrics, "nutgate_reservations_open", 3);
    ledger.settle(one, msat(450), Record::default()).await.unwrap();
    ledger.release(two).await.unwrap();
    clock.set(UnixMs(2_000_000));
    assert_eq!(ledger.expire().await.unwrap().len(), 1);
    // Its end was counted as what it was, by whoever made it.
    ledger.settle(three, msat(10), Record::default()).await.unwrap();
    for how in ["settled", "released", "expired"] {
        check(&metrics, &format!("nutgate_reservations_ended_total{{how=\"{how}\"}}"), 1);
    }
    check(&metrics, "nutgate_settle_shortfall_msat_total", 50);
    check(&metrics, "nutgate_reservations_open", 0);
    check(&metrics, "nutgate_ledger_up", 1);
}

/// One, called `u`, that is left alone after its first failure.
fn upstreams() -> Upstreams {
    let text = "upstreams: [{name: u, base_url: 'https://u', health: {failures: 1}}]";
    let config = Config::parse("f.yaml", text, &Machine).unwrap();
    Upstreams::new(&config.upstreams).unwrap()
}

#[test]
fn how_an_upstream_does_is_shown_from_the_start_and_as_it_is_now() {
    let metrics = Metrics::default();
    let upstreams = upstreams();
    metrics.watch_upstreams(&upstreams);
    let checked = |state, refused, unreachable| {
        check(&metrics, "nutgate_upstream_state{upstream=\"u\"}", state);
        let refusals = "nutgate_upstream_refused_total{status=\"401\",upstream=\"u\"}";
        check(&metrics, refusals, refused);
        let failures = "nutgate_upstream_failures_total{kind=\"unreachable\",upstream=\"u\"}";
        check(&metrics, failures, unreachable);
    };
    let report = |outcome| upstreams.find("u").unwrap().begin().unwrap().report(outcome);
    checked(0, 0, 0);
    report(Outcome::Answered { first_byte: Duration::from_millis(70) });
    check(&metrics, "nutgate_upstream_first_byte_ms{upstream=\"u\"}", 70);
    report(Outcome::Refused { status: 401 });
    checked(2, 1, 0);
    let upstreams = self::upstreams();
    let metrics = Metrics::default();
    metrics.watch_upstreams(&upstreams);
    upstreams.find("u").unwrap().begin().unwrap().report(Outcome::Failed(Failure::Unreachable));
    check(&metrics, "nutgate_upstream_state{upstream=\"u\"}", 2);
    let failures = "nutgate_upstream_failures_total{kind=\"unreachable\",upstream=\"u\"}";
    check(&metrics, failures, 1);
    check(&metrics, failures, 1);
}

#[tokio::test]
async fn alerts_name_only_what_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    metrics.watch(&ledger(&dir, &Clock::System, &metrics).await, None);
    metrics.refused("payment_required");
    metrics.watch_upstreams(&upstreams());
    metrics.watch_rate();
    metrics.watch_certificate(|| 0);
    let text = metrics.text();
    let measured: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let expressions = RULES.lines().filter_map(|line| line.trim().strip_prefix("expr:"));
    let named: BTreeSet<&str> = expressions
        .flat_map(|text| text.split(|c| !is_name(c)))
        .filter(|word| word.starts_with("nutgate_"))
        .collect();
    assert!(named.len() >= 4, "{named:?}");
    assert!(named.is_subset(&measured), "{named:?} of {measured:?}");
    serde_yaml::from_str::<serde_yaml::Value>(RULES).unwrap();
}

#[test]
fn an_audit_sets_its_gauges_at_once_and_one_that_fails_leaves_them() {
    let metrics = Metrics::default();
    let (made, audits) = std::sync::mpsc::channel();
    let outcomes = std::sync::Mutex::new(vec![
        Err("no disk".to_owned()),
        Ok(Finding { drift: msat(7), contradictions: vec!["one".to_owned()] }),
    ]);
    let audit = move || {
        let outcome = outcomes.lock().unwrap().pop();
        made.send(()).unwrap();
        outcome.unwrap_or_else(|| Err("no more".to_owned()))
    };
    audit_every(Duration::from_millis(1), metrics.clone(), audit).unwrap();
    for _ in 0..3 {
        audits.recv_timeout(Duration::from_secs(30)).unwrap();
    }
    // The third audit has begun, so the first two have come to their ends.
    check(&metrics, "nutgate_ledger_drift_msat", 7);
    check(&metrics, "nutgate_audit_findings", 1);
}
