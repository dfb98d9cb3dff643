//! `POST /v1/webhooks`, `GET /v1/webhooks` and `DELETE /v1/webhooks/{id}`: where what happens to an
//! account is posted. Whoever shows its key acts on its webhooks and on no others; a child key has
//! its own, of its own requests.

use axum::extract::{Path, State};
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::balance::{account_of, bearer};
use super::input::Input;
use super::openapi::{
    FIELDS, KEY, Operation, Payers, REDEEMED, Tag, WEBHOOK_MADE, WEBHOOK_NAMED, WEBHOOKS,
};
use super::{ApiState, Refused};
use crate::clock::UnixMs;
use crate::error::{Kind, Refusal};
use crate::ids::AccountId;
use crate::ledger::Ledger;
use crate::webhook::{
    EventKind, PER_ACCOUNT_MAX, Registered, Registration, WebhookRefused, WebhookSecret,
};

/// Every path with and without the version.
pub(super) fn routes<L: Ledger>(state: ApiState<L>) -> Router {
    ["/v1", ""]
        .iter()
        .fold(Router::new(), |router, prefix| {
            router
                .route(&format!("{prefix}/webhooks"), get(list::<L>).post(register::<L>))
                .route(&format!("{prefix}/webhooks/{{id}}"), delete(remove::<L>))
        })
        .with_state(state)
}

pub(super) fn operations() -> [Operation; 3] {
    let of_owner = |operation: Operation, below: &str| {
        operation
            .tag(Tag::Webhooks)
            .also_at(&["", "/v1"], below)
            .paid_by(Payers::Bearer)
            .refuses(&[KEY, REDEEMED, WEBHOOKS])
    };
    [
        of_owner(Operation::post("/v1/webhooks", "registerWebhook"), "/webhooks")
            .says(
                "Have what happens to a key posted somewhere",
                "A secret made here is shown once.",
            )
            .json::<Asked>()
            .makes::<Shown>("It is registered.")
            .refuses(&[FIELDS, WEBHOOK_MADE]),
        of_owner(Operation::get("/v1/webhooks", "listWebhooks"), "/webhooks")
            .says("The webhooks of a key", "")
            .answers::<Listed>("All of them, with how their deliveries fare."),
        of_owner(Operation::delete("/v1/webhooks/{id}", "removeWebhook"), "/webhooks/{id}")
            .says("Remove a webhook", "Nothing more is posted to it.")
            .id_in_path("id", "The webhook's id.")
            .answers_as(204, "It is gone.", Vec::new())
            .refuses(&[WEBHOOK_NAMED]),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "WebhookRequest")]
struct Asked {
    #[schemars(required)]
    url: Option<String>,
    #[schemars(required)]
    events: Option<Vec<EventKind>>,
    secret: Option<String>,
}

/// Times are in seconds since 1970.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Webhook")]
struct Shown {
    id: String,
    object: &'static str,
    url: String,
    events: Vec<EventKind>,
    status: &'static str,
    created_at: u64,
    /// Deliveries that wait.
    queued: u64,
    last_success_at: Option<u64>,
    last_failure_at: Option<u64>,
    last_failure: Option<String>,
    disabled_at: Option<u64>,
    disabled_reason: Option<String>,
    /// Of a secret that was made here, in the one answer that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Webhooks")]
struct Listed {
    object: &'static str,
    data: Vec<Shown>,
}

async fn register<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
    asked: Result<Input<Asked>, Refused>,
) -> Result<(StatusCode, Json<Shown>), Refused> {
    let account = owner(&api, &headers).await?;
    let Input(asked) = asked?;
    let made_here = asked.secret.is_none();
    let registration = registration(account, asked)?;
    let registered = api.webhooks.register(registration).await;
    let (registered, secret) = registered.map_err(|refused| refusal(&refused))?;
    let mut shown = Shown::of(registered);
    shown.secret = made_here.then(|| secret.reveal().to_owned());
    Ok((StatusCode::CREATED, Json(shown)))
}

async fn list<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
) -> Result<Json<Listed>, Refused> {
    let account = owner(&api, &headers).await?;
    let registered = api.webhooks.list(account).await.map_err(|refused| refusal(&refused))?;
    Ok(Json(Listed { object: "list", data: registered.into_iter().map(Shown::of).collect() }))
}

async fn remove<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    let account = owner(&api, &headers).await?;
    match api.webhooks.remove(account, id).await.map_err(|refused| refusal(&refused))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown().into()),
    }
}

/// Whose key was shown.
async fn owner<L: Ledger>(api: &ApiState<L>, headers: &HeaderMap) -> Result<AccountId, Refusal> {
    if !api.config.webhooks.enabled {
        return Err(not_offered());
    }
    let shown = bearer(api, headers)?;
    account_of(api, &shown).await?;
    Ok(shown.key().account())
}

fn registration(account: AccountId, asked: Asked) -> Result<Registration, Refusal> {
    let url = asked.url.ok_or_else(|| Refusal::field("url", "is required: where to post"))?;
    if url.len() > URL_BYTES_MAX {
        let problem = format_args!("must be at most {URL_BYTES_MAX} bytes");
        return Err(Refusal::field("url", problem));
    }
    let asked_for = asked.events.unwrap_or_default();
    if asked_for.is_empty() {
        return Err(Refusal::field("events", "is required: what to be told of"));
    }
    let events = EventKind::ALL.into_iter().filter(|kind| asked_for.contains(kind)).collect();
    let secret = asked.secret.map(WebhookSecret::given).transpose();
    let secret = secret.map_err(|problem| Refusal::field("secret", problem))?;
    Ok(Registration { account, url, events, secret })
}

impl Shown {
    fn of(registered: Registered) -> Self {
        let Registered { id, url, events, created, .. } = registered;
        let (failed, failure) = registered.last_failure.unzip();
        let (disabled, disabled_reason) = registered.disabled.unzip();
        Self {
            id,
            object: "webhook",
            url,
            events,
            status: if disabled.is_some() { "disabled" } else { "enabled" },
            created_at: created.whole_seconds(),
            queued: registered.queued,
            last_success_at: registered.last_success.map(UnixMs::whole_seconds),
            last_failure_at: failed.map(UnixMs::whole_seconds),
            last_failure: failure,
            disabled_at: disabled.map(UnixMs::whole_seconds),
            disabled_reason,
            secret: None,
        }
    }
}

fn refusal(refused: &WebhookRefused) -> Refusal {
    match refused {
        WebhookRefused::Url(unwelcome) => Refusal::field("url", unwelcome),
        WebhookRefused::TooMany => Refusal::new(
            Kind::InvalidRequest,
            "too_many_webhooks",
            format!("a key has at most {PER_ACCOUNT_MAX} webhooks; remove one first"),
        )
        .status(409),
        WebhookRefused::NoAccount => Refusal::key_not_found(),
        WebhookRefused::NotForChildren => Refusal::field(
            "events",
            "of a child key are key.expired and payment.settled; the balance is its parent's",
        ),
        WebhookRefused::Ledger(_) | WebhookRefused::Store(_) => {
            log::error!("webhooks: {refused}");
            Refusal::ledger_unavailable()
        }
    }
}

fn unknown() -> Refusal {
    Refusal::new(Kind::NotFound, "webhook_not_found", "this key has no webhook of this id")
}

fn not_offered() -> Refusal {
    Refusal::new(Kind::NotFound, "webhooks_not_offered", "this gateway delivers no webhooks")
}

/// Longer than any address that somebody serves.
const URL_BYTES_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(fields: Value) -> Result<Registration, String> {
        let asked: Asked = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        registration(AccountId::stored("a"), asked).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_registration_has_its_bounds_and_a_mistake_names_its_field() {
        let url = |length: usize| format!("https://a.example/{}", "x".repeat(length - 18));
        let whole = json!({
            "url": url(2_048), "events": ["payment.settled", "balance.low", "balance.low"],
            "secret": "x".repeat(256),
        });
        let read = asked(whole.clone()).unwrap();
        assert_eq!(read.events, [EventKind::BalanceLow, EventKind::PaymentSettled]);
        for (field, wrong) in [
            ("url", json!(null)),
            ("url", json!(url(2_049))),
            ("events", json!(null)),
            ("events", json!([])),
            ("secret", json!("x".repeat(15))),
            ("secret", json!("x".repeat(257))),
            ("secret", json!("whsec_!")),
        ] {
            let mut fields = whole.clone();
            fields[field] = wrong;
            let refused = asked(fields).unwrap_err();
            assert!(refused.contains(&format!("'{field}'")), "{refused}");
        }
        let mut fields = whole;
        fields["events"] = json!(["balance.low", "everything"]);
        let refused = asked(fields).unwrap_err();
        assert!(refused.contains("expected one of `balance.low`"), "{refused}");
    }

    #[test]
    fn every_refusal_has_its_code() {
        for (refused, status, code) in [
            (WebhookRefused::Url(crate::fetch::guard::Unwelcome::Host), 400, "invalid_value"),
            (WebhookRefused::TooMany, 409, "too_many_webhooks"),
            (WebhookRefused::NoAccount, 401, "invalid_api_key"),
            (WebhookRefused::NotForChildren, 400, "invalid_value"),
            (
                WebhookRefused::Store(crate::store::StoreError("x".to_owned())),
                503,
                "ledger_unavailable",
            ),
        ] {
            let refusal = refusal(&refused);
            assert_eq!((refusal.status_code(), refusal.code()), (status, code), "{refused:?}");
        }
    }
}
