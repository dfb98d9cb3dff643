//! The capture ratio: over a mix of everything that goes wrong, each request is charged what the
//! upstream truly made, as far as the policy of its model says so. One table for all policies.
//!
//! What is due, which `due` computes from what the upstream wrote down:
//!
//! * An answer whose usage was told and which was heard to its end costs exactly that. With
//!   `abort: drain` it is heard to its end whoever has left.
//! * Where no usage was told, what came is charged by `missing_usage`. `estimate`: four bytes are
//!   a token, rounded up, of the body and of the text that came, an event with text or an ending is
//!   at least one, and never more than what was reserved. `floor`: the events. `ceiling`: all
//!   that was reserved. An input that was said on the way is charged as said.
//! * With `abort: cancel`, a client that leaves an open stream is charged so for what had passed
//!   the gateway: no less than the client has seen, no more than the upstream has written.
//! * An answer that is held (a document, or anything paid by `X-Cashu`) costs nothing if it broke
//!   off. With `abort: cancel`, a client that left it, or that left before its stream had a word,
//!   pays for the input that an upstream was at work on: by `estimate` the body, by `floor` none,
//!   by `ceiling` all that was reserved.
//! * Who produced nothing is paid nothing.
//!
//! A short mix here; `make chaos` asks for the full one.

mod client;
mod due;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use nutgate_sandbox::upstream::{DEFAULT_API_KEY, Produced};
use nutgate_sandbox::{Upstream, UpstreamOptions};
use tokio::task::JoinSet;

use crate::support::{
    Key, PRICE, Pay, Price, Setting, Value, World, is_full_chaos, json, model, streamed, upstream,
    with, within,
};

use client::Seen;
use due::{Attempt, Due};
use plan::{Payment, Plan, WAYS};

const ABORT: [&str; 2] = ["drain", "cancel"];
const MISSING: [&str; 3] = ["estimate", "floor", "ceiling"];
const CLIENTS: usize = 24;

/// What the second upstream charges, which serves when another one cannot.
const DEAR: Price = Price { request: 23_000, input: 4, output: 14 };

/// What a model does about clients that leave and usage that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Policy {
    abort: &'static str,
    missing: &'static str,
}

impl Policy {
    fn all() -> impl Iterator<Item = Self> {
        ABORT.into_iter().flat_map(|abort| MISSING.map(|missing| Self { abort, missing }))
    }

    fn model(self, way: &str) -> String {
        format!("{}-{}-{way}", self.abort, self.missing)
    }
}

/// One request as it went.
struct Done {
    plan: Plan,
    seen: Seen,
    charged: u64,
}

#[tokio::test]
async fn what_was_produced_is_charged_by_every_policy_whatever_happens() {
    let mut down = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let other = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let second = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let at = |name: &str, at: &Upstream| upstream(name, at, DEFAULT_API_KEY);
    let setting = Setting {
        more_upstreams: vec![
            at("down", &down),
            at("busy", &other),
            at("limited", &other),
            at("second", &second),
        ],
        more_models: Policy::all().flat_map(models).collect(),
        timeouts: json!({"first_byte": "3s", "idle": "3s"}),
        config: json!({"log": "info"}),
        ..Setting::default()
    };
    let world = Arc::new(World::with(setting).await);
    down.stop().await;
    let chunks = world.ask_upstream(&streamed("demo")).await.events().json();
    let words: Vec<String> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();

    let each = if is_full_chaos() { 2_000 } else { 50 };
    let plans: Vec<Plan> = Policy::all().flat_map(|policy| Plan::mix(policy, each)).collect();
    let mut clients = JoinSet::new();
    for turn in 0..CLIENTS {
        let own = plans.iter().skip(turn).step_by(CLIENTS).cloned().collect();
        clients.spawn(live(world.clone(), own));
    }
    let (mut done, mut given, mut found) = (Vec::new(), 0, 0);
    for lived in clients.join_all().await {
        done.extend(lived.done);
        given += lived.given;
        found += lived.found;
    }
    assert_eq!(found, given, "every msat is spent, on a balance or in change");
    assert_eq!(done.len(), plans.len());
    world.check_balanced().await;
    check_rows(&world, &done);

    let mut attempts: HashMap<String, Vec<Attempt>> = HashMap::new();
    for (price, upstream) in [(PRICE, &world.upstream), (PRICE, &other), (DEAR, &second)] {
        within("it has ended", upstream.await_produced(upstream.count())).await;
        for produced in upstream.produced() {
            let id = produced.request_id.clone();
            attempts.entry(id).or_default().push(Attempt { price, produced });
        }
    }
    report(&done, &attempts, &words);
}

/// A model of this policy for each way in which an upstream answers.
fn models(policy: Policy) -> Vec<Value> {
    let served = |(way, by, upstream_model): &(&str, &str, &str)| {
        let mut members = json!({
            "abort": policy.abort, "missing_usage": policy.missing,
            "upstreams": [{"name": by, "upstream_model": upstream_model}],
        });
        if way.starts_with("after-") {
            let price = json!({"currency": "sat", "request": 23, "input": 4_000, "output": 14_000});
            let second = json!({"name": "second", "upstream_model": "demo", "price": price});
            members["upstreams"].as_array_mut().unwrap().push(second);
        }
        with(model(&policy.model(way), &[]), members)
    };
    WAYS.iter().map(served).collect()
}

struct Lived {
    done: Vec<Done>,
    /// All that this client had, and all that it was found to have and to have spent, in msat.
    given: u64,
    found: u64,
}

/// One client, which makes its requests one after the other.
async fn live(world: Arc<World>, plans: Vec<Plan>) -> Lived {
    let key = world.key(KEY_SATS).await;
    let mut lived = Lived { done: Vec::new(), given: KEY_SATS * 1000, found: 0 };
    let mut seen = Vec::new();
    for plan in plans {
        let one_off = match plan.payment {
            Payment::Key => None,
            Payment::XCashu => Some(world.sats(ECASH_SATS).await),
        };
        let pay = one_off.as_deref().map_or(Pay::Bearer(&key.0), Pay::XCashu);
        let what = client::make(&world, &plan, pay).await;
        seen.push((plan, what, one_off));
    }
    let balance = world.settled(&key).await;
    lived.found += balance.available + balance.spent;
    let receipts = world.receipts(&key).await;
    let mut charges: HashMap<String, u64> = HashMap::new();
    note(&mut charges, &receipts);
    for (_, _, ecash) in &seen {
        let Some(ecash) = ecash else { continue };
        lived.given += ECASH_SATS * 1000;
        lived.found += found_of(&world, ecash, &mut charges).await;
    }
    for (plan, seen, _) in seen {
        let charged = charges.get(&plan.id).copied().unwrap_or(0);
        lived.done.push(Done { plan, seen, charged });
    }
    lived
}

/// What is left of ecash that was shown once, and what was spent of it.
async fn found_of(world: &World, ecash: &str, charges: &mut HashMap<String, u64>) -> u64 {
    let claimed = world.claim(ecash).await;
    if claimed.status == 404 {
        assert!(!world.is_spent(ecash).await, "nobody knows it, so it is the client's still");
        return ECASH_SATS * 1000;
    }
    let change = claimed.expect(200).json()["token"].as_str().unwrap().to_owned();
    let key = Key::of(ecash);
    let balance = world.settled(&key).await;
    note(charges, &world.receipts(&key).await);
    world.worth(&change).await * 1000 + balance.available + balance.spent
}

/// What each request was charged. None is told twice.
fn note(charges: &mut HashMap<String, u64>, receipts: &[Value]) {
    for receipt in receipts {
        let cost = receipt["cost_msats"].as_u64().unwrap();
        let Some(id) = receipt["request_id"].as_str() else {
            // Made for a client that was told 503, since the ledger's answer came too late.
            assert_eq!((receipt["how"].as_str(), cost), (Some("expired"), 0), "{receipt}");
            continue;
        };
        let before = charges.insert(id.to_owned(), cost);
        assert_eq!(before, None, "billed twice: {receipt}");
    }
}

/// The ledger's rows say what the receipts do, and nothing is open.
fn check_rows(world: &World, done: &[Done]) {
    let rows = world.gateway.reservations();
    let mut spent: HashMap<&str, u64> = HashMap::new();
    for row in &rows {
        assert!(row.how.is_some() && row.shortfall == 0, "{row:?}");
        assert!(row.spent <= row.amount, "no more than was reserved: {row:?}");
        *spent.entry(&row.request_id).or_default() += row.spent;
    }
    for done in done {
        let row = spent.get(done.plan.id.as_str()).copied().unwrap_or(0);
        assert_eq!(row, done.charged, "{:?}", done.plan);
    }
}

/// Who stayed and was charged has an answer, and who has none of the upstream's was not.
fn check_seen(seen: &Seen, due: &Due, plan: &Plan) {
    match (seen.status, due) {
        (None, _) => assert!(seen.left, "{plan:?}"),
        // An upstream may say in a document that it failed.
        (Some(200), Due::Nothing { .. }) => assert_eq!(plan.way, "fails", "{plan:?}"),
        (Some(200), _) => {}
        (Some(429 | 502 | 503), due) => {
            assert!(matches!(due, Due::Nothing { .. }), "{plan:?} {due:?}");
        }
        (Some(status), _) => panic!("{status}: {plan:?}"),
    }
}

/// A row of the table.
#[derive(Default)]
struct Row {
    requests: u64,
    told: u64,
    told_produced: u64,
    told_charged: u64,
    untold: u64,
    untold_made: u64,
    least: u64,
    most: u64,
    untold_charged: u64,
    ahead: u64,
    nobodys: u64,
    nobodys_made: u64,
}

impl Row {
    fn cells(&self) -> String {
        let thousandths = self.told_charged * 1000 / self.told_produced;
        let ratio = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        let due = format!("{} to {}", self.least, self.most);
        let cells: [&dyn std::fmt::Display; 12] = [
            &self.requests,
            &self.told,
            &self.told_produced,
            &self.told_charged,
            &ratio,
            &self.untold,
            &self.untold_made,
            &due,
            &self.untold_charged,
            &self.ahead,
            &self.nobodys,
            &self.nobodys_made,
        ];
        cells.map(ToString::to_string).join(" | ")
    }
}

/// Asserts that each was charged what was due, and prints what came of it.
#[expect(clippy::print_stdout, reason = "the figures are what the test is for")]
fn report(done: &[Done], attempts: &HashMap<String, Vec<Attempt>>, words: &[String]) {
    let mut rows: HashMap<Policy, Row> = HashMap::new();
    for Done { plan, seen, charged } in done {
        let attempts = attempts.get(&plan.id).map(Vec::as_slice).unwrap_or_default();
        let due = due::due(plan, seen, attempts, words);
        let made: Vec<&Produced> = attempts.iter().map(|attempt| &attempt.produced).collect();
        assert!(due.allows(*charged), "{charged}, not {due:?}: {plan:?} {seen:?} {made:?}");
        check_seen(seen, &due, plan);
        let row = rows.entry(plan.policy).or_default();
        row.requests += 1;
        match due {
            Due::Told(cost) => {
                row.told += 1;
                row.told_produced += cost;
                row.told_charged += charged;
            }
            Due::Nothing { made } => {
                row.nobodys += 1;
                row.nobodys_made += made;
            }
            Due::ByPolicy { ref costs, made, ahead } => {
                row.untold += 1;
                row.untold_made += made;
                row.least += costs.iter().min().unwrap();
                row.most += costs.iter().max().unwrap();
                row.untold_charged += charged;
                row.ahead = row.ahead.max(ahead);
            }
        }
    }
    println!("{HEAD}");
    for policy in Policy::all() {
        let row = &rows[&policy];
        println!("| {} | {} | {} |", policy.abort, policy.missing, row.cells());
        assert_eq!(row.told_charged, row.told_produced, "{policy:?}");
        assert!(row.told > 0 && row.untold > 0, "the mix has both: {policy:?}");
    }
}

const KEY_SATS: u64 = 50_000;
/// More than any request may cost at the dearest upstream.
const ECASH_SATS: u64 = 40;

/// All amounts in msat: of answers whose usage was told, of those that are charged by the policy,
/// and of those that nobody got.
const HEAD: &str = "\
| abort | missing usage | requests | told | produced | charged | ratio \
| by policy | produced | due | charged | words ahead of the client | for nobody | produced |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";
