//! Upstreams as the edge meets them: asked, reported on, and chosen.

use super::*;
use crate::config::{Auth, Secret};

/// An upstream that opens at its second failure, for an hour.
pub(super) fn configured(name: &str) -> config::Upstream {
    let s = Duration::from_secs;
    config::Upstream {
        name: name.to_owned(),
        base_url: "https://u.example:8443/v1".to_owned(),
        query: String::new(),
        api_key: Secret::new(""),
        auth: Auth::Bearer,
        headers: Vec::new(),
        http: Http::Auto,
        strip_unsupported: Vec::new(),
        health: config::Health { failures: 2, cooldown: s(3600), probe: None },
        ca_file: None,
        connect_timeout: s(5),
        first_byte_timeout: s(300),
        idle_timeout: s(60),
        total_timeout: s(900),
        models: None,
    }
}

pub(super) fn upstream(config: &config::Upstream) -> Upstream {
    Upstream::new(config, 0, Stopwatch::start()).unwrap()
}

fn all(names: &[&str]) -> (Upstreams, Vec<Served>) {
    let configs: Vec<_> = names.iter().map(|name| configured(name)).collect();
    let served = |name: &&str| Served { upstream: (*name).to_owned(), ..Served::default() };
    (Upstreams::new(&configs).unwrap(), names.iter().map(served).collect())
}

fn indices(candidates: &[Candidate]) -> Vec<usize> {
    candidates.iter().map(|candidate| candidate.index).collect()
}

fn fail(upstream: &Arc<Upstream>) {
    upstream.begin().unwrap().report(Outcome::Failed(Failure::Unreachable));
}

#[test]
fn one_that_fails_goes_last_and_then_is_not_asked_at_all() {
    let (upstreams, served) = all(&["a", "b", "c"]);
    let order = || indices(&upstreams.candidates(&served, Select::Order, &[]));
    let a = upstreams.find("a").unwrap();
    assert_eq!(order(), [0, 1, 2]);
    fail(a);
    assert_eq!(order(), [0, 1, 2], "once is nothing");
    fail(a);
    assert_eq!(order(), [1, 2, 0]);
    assert!(a.begin().is_none());
    assert_eq!(a.position(), Position::Open);
    assert!(a.rests().is_some_and(|rests| rests > Duration::from_secs(3000)));
    assert_eq!(upstreams.find("b").unwrap().rests(), None);
    let candidates = upstreams.candidates(&served, Select::Order, &[]);
    assert_eq!(rest_of(&candidates), Duration::ZERO);
    assert!(rest_of(&candidates[2..]) > Duration::from_secs(3000));
}

#[test]
fn one_that_limits_us_goes_last_and_may_still_be_asked() {
    let (upstreams, served) = all(&["a", "b"]);
    let a = upstreams.find("a").unwrap();
    a.begin().unwrap().report(Outcome::Limited { retry_after: Duration::from_secs(60) });
    let candidates = upstreams.candidates(&served, Select::Order, &[]);
    assert_eq!(indices(&candidates), [1, 0]);
    assert!(candidates[1].upstream.begin().is_some());
    assert_eq!(a.rests(), None);
}

#[test]
fn asking_that_is_dropped_says_nothing_and_leaves_the_place_to_the_next() {
    let mut config = configured("a");
    config.health.cooldown = Duration::from_nanos(1);
    config.health.failures = 1;
    let upstreams = Upstreams::new(&[config]).unwrap();
    let a = upstreams.find("a").unwrap();
    fail(a);
    let trial = a.begin().unwrap();
    assert_eq!(trial.upstream().name, "a");
    assert!(a.begin().is_none(), "one trial at a time");
    drop(trial);
    let mut trial = a.begin().unwrap();
    trial.report(Outcome::Answered { first_byte: Duration::from_millis(3) });
    assert_eq!(a.position(), Position::Closed);
    assert_eq!(a.first_byte(), Some(Duration::from_millis(3)));
    trial.report(Outcome::Failed(Failure::Broken));
    assert_eq!(a.counts().failures, [1, 0, 0, 1]);
    assert_ne!(a.position(), Position::Closed, "its answer broke off");
}

#[test]
fn the_cheapest_is_chosen_by_what_this_request_may_cost_there() {
    let (upstreams, mut served) = all(&["a", "b", "c"]);
    let amount = |msat| Msat::new(msat).unwrap();
    let order = |served: &[Served], ceilings: &[Msat]| {
        indices(&upstreams.candidates(served, Select::Price, ceilings))
    };
    assert_eq!(order(&served, &[amount(3), amount(2), amount(1)]), [2, 1, 0]);
    assert_eq!(order(&served, &[amount(3), amount(2)]), [1, 0, 2]);
    served[1].upstream = "unknown".to_owned();
    assert_eq!(order(&served, &[amount(3), amount(2), amount(1)]), [2, 0]);
}

#[test]
fn chance_sends_requests_to_everyone_who_has_a_weight() {
    let (upstreams, served) = all(&["a", "b"]);
    for select in [Select::Weight, Select::Latency] {
        let first = |_| indices(&upstreams.candidates(&served, select, &[]))[0];
        // That all of them fall on one is less likely than 2^-45.
        let firsts: std::collections::HashSet<usize> = (0..1000).map(first).collect();
        assert_eq!(firsts.len(), 2, "{select:?}");
    }
}

#[test]
fn only_a_listed_parameter_is_found_in_a_refusal() {
    let refusal = br#"{"error": {"code": "unsupported_parameter", "param": "logprobs"}}"#;
    let config = configured("a");
    assert!(!upstream(&config).strips());
    assert_eq!(upstream(&config).unsupported(refusal), None);
    let config = config::Upstream { strip_unsupported: vec!["logprobs".to_owned()], ..config };
    assert!(upstream(&config).strips());
    assert_eq!(upstream(&config).unsupported(refusal), Some("logprobs"));
}
