//! Where a key stands with its limits, told with every answer to whoever showed it.
//!
//! A handler notes the account that it reads anyway, and what it answers, a refusal too, gets the
//! lines. Where no key was shown nothing is noted and nothing is said.

use std::cell::Cell;

use axum::response::Response;

use super::{KnownKey, rate_limit_headers, set_all};
use crate::clock::UnixMs;
use crate::ledger::Account;
use crate::ledger::terms::{Limits, Standing};

/// Adds the rate limit lines to an answer, if its handler noted an account, and says that it did.
pub(super) async fn told(answer: impl Future<Output = Response>) -> Response {
    let noted = async {
        let response = answer.await;
        (response, NOTED.with(Cell::get))
    };
    let (mut response, standing) = NOTED.scope(Cell::new(None), noted).await;
    if let Some(standing) = standing {
        set_all(response.headers_mut(), rate_limit_headers(standing, UnixMs::now()));
        response.extensions_mut().insert(KnownKey);
    }
    response
}

/// Notes the account of the key that was shown. The limits are those of keys without their own.
pub(super) fn note(account: &Account, limits: Limits) {
    let limits = account.terms.limits(limits);
    let standing = account.usage.standing_about(limits, UnixMs::now());
    // Outside of an answer nobody tells it.
    let _nowhere = NOTED.try_with(|noted| noted.set(Some(standing)));
}

tokio::task_local! {
    static NOTED: Cell<Option<Standing>>;
}
