//! `POST /v1/balance/refund`: what is left goes back as ecash. By key or by Cashu bearer it pays
//! out; by the `X-Cashu` of an earlier payment it claims the change of that payment. Repeated,
//! it answers the same token, because an answer with money in it may get lost. With a
//! `lightning_address` it is paid there; a change is ecash, and is not.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refusals::{pay_refusal, pending, refund_not_found, refund_refusal};
use super::{PREFIXES, Shown, bearer_or_paid};
use crate::api::input::{Input, Sats};
use crate::api::once::{Executed, Made};
use crate::api::openapi::{FIELDS, KEY, Operation, Payers, REFUNDED, Tag};
use crate::api::{ApiState, Refused, cashu_headers, standing};
use crate::error::Refusal;
use crate::ledger::Ledger;
use crate::till::{LightningAddress, PayAsk, RefundAsk, RefundRefused, Refunded};

pub(super) fn operation() -> Operation {
    Operation::post("/v1/balance/refund", "refund")
        .tag(Tag::Balance)
        .says("What is left becomes a Cashu token", ABOUT)
        .also_at(&PREFIXES, "/refund")
        .paid_by(Payers::BearerOrPaid)
        .once()
        .json_if_any::<Asked>()
        .answers::<Paid>(
            "Ecash, or what was paid over Lightning. Repeating the request returns the same.",
        )
        .with(&["X-Cashu", "X-Cashu-Refund"])
        .refuses(&[FIELDS, KEY, REFUNDED])
}

const ABOUT: &str = "By key or Cashu bearer it pays out; what is below a sat stays on the account. By \
    the `X-Cashu` of an earlier request it claims the change of that payment.";

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RefundRequest")]
pub(super) struct Asked {
    /// Everything, if it is not given.
    amount_sats: Option<Sats>,
    /// One of `mints` in `GET /v1/info`.
    mint: Option<String>,
    /// Where to pay it over Lightning, instead of as ecash: `name@host`.
    lightning_address: Option<String>,
}

/// Amounts are strings here, as existing clients read them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Refunded")]
#[serde(untagged)]
pub(super) enum Paid {
    Ecash {
        #[serde(rename = "token")]
        cashu_token: String,
        sats: String,
        msats: String,
    },
    Lightning {
        recipient: String,
        sats: String,
        msats: String,
        /// What the payment cost besides.
        fee_msats: String,
    },
}

pub(super) async fn refund<L: Ledger>(
    State(api): State<ApiState<L>>,
    once: Option<Extension<Executed>>,
    headers: HeaderMap,
    asked: Result<Input<Asked>, Refused>,
) -> Result<Answered, Refused> {
    paid_back(&api, once, &headers, asked).await.map_err(Refused::claim)
}

/// `Made` says which withdrawal an ecash answer is.
type Answered = (HeaderMap, Option<Extension<Made>>, Json<Paid>);

async fn paid_back<L: Ledger>(
    api: &ApiState<L>,
    once: Option<Extension<Executed>>,
    headers: &HeaderMap,
    asked: Result<Input<Asked>, Refused>,
) -> Result<Answered, Refusal> {
    let shown = bearer_or_paid(api, headers)?;
    let Input(asked) = asked.map_err(|refused| refused.refusal)?;
    if let Some(address) = &asked.lightning_address {
        return paid_out(api, &shown, &asked, address).await;
    }
    let amount = asked.amount_sats.map(|Sats(amount)| amount);
    let ask = RefundAsk { amount, mint: asked.mint, once: once.map(|Extension(once)| once.refund) };
    let refunded = refunded(api, &shown, ask).await?;
    let text = refunded.cashu_token.reveal().to_owned();
    let head = cashu_headers(&text, api.config.refunds_alias).into_iter().collect();
    let paid = Paid::Ecash {
        cashu_token: text,
        sats: refunded.amount.whole_sats().to_string(),
        msats: refunded.amount.get().to_string(),
    };
    Ok((head, Some(Extension(Made(refunded.id))), Json(paid)))
}

async fn paid_out<L: Ledger>(
    api: &ApiState<L>,
    shown: &Shown,
    asked: &Asked,
    address: &str,
) -> Result<Answered, Refusal> {
    let refused = |problem| Refusal::field("lightning_address", problem);
    if matches!(shown, Shown::Paid(_)) {
        return Err(refused("is not for the change of a request, which is claimed as ecash"));
    }
    let by = api.pay_out.as_ref().ok_or_else(|| refused("is not offered here"))?;
    let to = LightningAddress::parse(address);
    let to = to.ok_or_else(|| refused("must be a Lightning address, like name@host"))?;
    note_standing(api, shown).await;
    let amount = asked.amount_sats.map(|Sats(amount)| amount);
    let ask = PayAsk { amount, mint: asked.mint.clone(), to };
    let paid = api.till.pay_out(shown.key().account(), ask, by).await;
    let paid = paid.map_err(|refused| pay_refusal(&refused))?;
    let answer = Paid::Lightning {
        recipient: paid.recipient,
        sats: paid.amount.whole_sats().to_string(),
        msats: paid.amount.get().to_string(),
        fee_msats: paid.fee.get().to_string(),
    };
    Ok((HeaderMap::new(), None, Json(answer)))
}

async fn refunded<L: Ledger>(
    api: &ApiState<L>,
    shown: &Shown,
    ask: RefundAsk,
) -> Result<Refunded, Refusal> {
    let account = shown.key().account();
    note_standing(api, shown).await;
    let refused = match api.till.refund(account.clone(), ask.clone()).await {
        Ok(refunded) => return Ok(refunded),
        Err(refused) => refused,
    };
    let (Shown::CashuBearer(ecash) | Shown::Paid(ecash), RefundRefused::NoAccount) =
        (shown, &refused)
    else {
        return Err(refusal_for(shown, &refused));
    };
    if api.till.is_redeeming(ecash.reveal()).await {
        return Err(pending("this payment is being redeemed; its refund follows"));
    }
    // A redemption that ended between the two looks has its account by now.
    api.till.refund(account, ask).await.map_err(|refused| match refused {
        RefundRefused::NoAccount => refund_not_found(),
        refused => refusal_for(shown, &refused),
    })
}

/// For what is told of a key's limits: an account that cannot be read is no reason to refuse.
async fn note_standing<L: Ledger>(api: &ApiState<L>, shown: &Shown) {
    if let Ok(Some(account)) = api.till.ledger().account(shown.key().account()).await {
        standing::note(&account, api.config.rate_limits);
    }
}

fn refusal_for(shown: &Shown, refused: &RefundRefused) -> Refusal {
    match (shown, refused) {
        // The change of a request exists when the request has ended.
        (Shown::Paid(_), RefundRefused::InProgress { .. }) => {
            pending("the request that this paid for is still running; its change follows")
        }
        (Shown::Key(_) | Shown::CashuBearer(_) | Shown::Paid(_), _) => refund_refusal(refused),
    }
}
