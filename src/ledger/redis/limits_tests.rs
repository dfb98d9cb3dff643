//! Limits at their boundary: many gateways, one server, and a clock that stands still.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use futures_util::stream;
use nutgate_sandbox::{Redis as Server, RedisOptions};

use super::*;
use crate::clock::UnixMs;
use crate::ids::{DepositId, ReservationId};
use crate::ledger::terms::{Limits, REQUESTS_WINDOW, Room, TOKENS_WINDOW};
use crate::ledger::{Limit, Record};

const BEGINNING: UnixMs = UnixMs(1_000_000);

/// Gateways of one fleet.
fn fleet(server: &Server, clock: &Clock) -> Vec<Redis> {
    let open = |_| {
        let patience = Duration::from_secs(30);
        Redis::with(&server.url(), patience, clock.clone(), Scripts::default()).unwrap()
    };
    (0..4).map(open).collect()
}

async fn funded(gateway: &Redis) -> AccountId {
    let account = AccountId::stored("ab-account");
    let amount = Msat::new(1_000_000).unwrap();
    let deposit = Deposit { id: DepositId::stored("deposit"), account: account.clone(), amount };
    gateway.deposit(deposit).await.unwrap();
    account
}

fn asking(account: &AccountId, limits: Limits) -> Admission {
    Admission {
        reservation: ReservationId::fresh(),
        account: account.clone(),
        ceiling: Msat::new(7).unwrap(),
        tokens: 10,
        lifetime: Duration::from_secs(60),
        limits,
        once: None,
    }
}

/// What so many requests are answered, whichever gateway they come to.
async fn asked(
    fleet: &[Redis],
    account: &AccountId,
    limits: Limits,
    requests: usize,
) -> (Vec<Admitted>, Vec<Denial>) {
    let gateways = fleet.iter().cycle().take(requests);
    let answers = stream::iter(gateways)
        .map(|gateway| gateway.admit(asking(account, limits)))
        .buffer_unordered(64);
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    let (mut admitted, mut denied) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(request) => admitted.push(request),
            Err(denial) => denied.push(denial),
        }
    }
    (admitted, denied)
}

#[tokio::test]
async fn of_10000_requests_at_the_boundary_exactly_the_limit_is_admitted_and_counted_down() {
    let server = Server::start(RedisOptions::default()).await.unwrap();
    let clock = Clock::manual(BEGINNING);
    let fleet = fleet(&server, &clock);
    let account = funded(&fleet[0]).await;
    let limits = Limits { requests_per_minute: 1_000, ..Limits::NONE };
    let (admitted, denied) = asked(&fleet, &account, limits, 10_000).await;
    assert_eq!((admitted.len(), denied.len()), (1_000, 9_000));
    let rooms = admitted.iter().map(|request| request.standing.requests);
    let left: BTreeSet<u64> = rooms.clone().map(|room| room.left).collect();
    assert!(left.into_iter().eq(0..1_000), "each number is told once");
    assert!(rooms.clone().all(|room| room.reset_in == REQUESTS_WINDOW));
    let none = Room { limit: 1_000, left: 0, reset_in: REQUESTS_WINDOW };
    for Denial { denied, standing } in denied {
        assert!(matches!(denied, Denied::Limited(limited) if limited.which == Limit::Requests));
        assert_eq!(standing.unwrap().requests, none);
    }
    let found = fleet[1].account(account.clone()).await.unwrap().unwrap();
    assert_eq!((found.open_reservations, found.reserved.get()), (1_000, 7_000));

    clock.set(BEGINNING.plus(REQUESTS_WINDOW - Duration::from_millis(1)));
    let (admitted, denied) = asked(&fleet, &account, limits, 1).await;
    assert!(admitted.is_empty());
    assert_eq!(denied[0].standing.unwrap().requests.reset_in, Duration::from_millis(1));
    clock.set(BEGINNING.plus(REQUESTS_WINDOW));
    let (admitted, _) = asked(&fleet, &account, limits, 1).await;
    assert_eq!(admitted[0].standing.requests, Room { left: 999, ..none });
}

#[tokio::test]
async fn of_the_tokens_of_an_hour_what_is_open_is_held_and_what_was_used_is_counted() {
    let server = Server::start(RedisOptions::default()).await.unwrap();
    let clock = Clock::manual(BEGINNING);
    let fleet = fleet(&server, &clock);
    let account = funded(&fleet[0]).await;
    let limits = Limits { tokens_per_hour: 1_009, ..Limits::NONE };
    let (admitted, denied) = asked(&fleet, &account, limits, 400).await;
    assert_eq!((admitted.len(), denied.len()), (100, 300));
    let left: BTreeSet<u64> = admitted.iter().map(|one| one.standing.tokens.left).collect();
    assert!(left.into_iter().eq((0..100).map(|nth| 9 + 10 * nth)));
    let none = Room { limit: 1_009, left: 9, reset_in: TOKENS_WINDOW };
    assert!(denied.iter().all(|denial| denial.standing.unwrap().tokens == none));

    for Admitted { reservation, .. } in admitted {
        let record = Record { input_tokens: 3, output_tokens: 1, ..Record::default() };
        let cost = Msat::new(1).unwrap();
        fleet[2].settle(reservation, cost, record).await.unwrap();
    }
    let (admitted, _) = asked(&fleet, &account, limits, 1).await;
    assert_eq!(admitted[0].standing.tokens, Room { left: 1_009 - 400 - 10, ..none });
    let found = fleet[3].account(account.clone()).await.unwrap().unwrap();
    let told = found.usage.standing(limits, clock.now());
    assert_eq!(told, admitted[0].standing, "an account read tells the same");
}

#[tokio::test]
async fn a_parent_has_so_many_children_and_one_that_is_revoked_makes_room() {
    let server = Server::start(RedisOptions::default()).await.unwrap();
    let ledger = Redis::open(&server.url(), Duration::from_secs(30)).unwrap();
    crate::ledger::children::tests::check_bound(&ledger, "2a-").await;
}
