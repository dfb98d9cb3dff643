//! Mint, faucet, upstream and gateway, started together, and a client of all of them.

use std::sync::Arc;

use nutgate_sandbox::{
    CurrencyUnit, Faucet, Mint, MintOptions, Misbehaviour, TokenFormat, Upstream, UpstreamOptions,
};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Answer, Fleet, Gateway, LOOK_AGAIN, Pay, Price, Raw, Servers, within};

pub(crate) struct World {
    pub(crate) mint: Mint,
    pub(crate) faucet: Arc<Faucet>,
    pub(crate) upstream: Upstream,
    pub(crate) gateway: Gateway,
    /// Beside the first one, in a fleet.
    pub(crate) others: Vec<Gateway>,
    pub(crate) servers: Option<Servers>,
    pub(crate) client: Client,
}

/// How a world differs from the usual one.
#[derive(Default)]
pub(crate) struct Setting {
    pub(crate) mint: MintOptions,
    pub(crate) upstream: UpstreamOptions,
    /// The units of the mint that are accepted; `None` for all that it issues.
    pub(crate) accepts: Option<Vec<CurrencyUnit>>,
    /// Merged into the configuration, mapping by mapping; lists are replaced.
    pub(crate) config: Value,
    /// Merged into the world's own upstream, which is called `sandbox`.
    pub(crate) timeouts: Value,
    /// Beside the world's own; see [`upstream`].
    pub(crate) more_upstreams: Vec<Value>,
    /// Beside `demo` and one model per misbehaviour; see [`model`].
    pub(crate) more_models: Vec<Value>,
    /// A Redis and a PostgreSQL that this many gateways share.
    pub(crate) fleet: Option<Fleet>,
}

impl Setting {
    /// An upstream whose `-slow` models wait at a gate.
    pub(crate) fn gated() -> Self {
        let upstream = UpstreamOptions { gated: true, ..UpstreamOptions::default() };
        Self { upstream, ..Self::default() }
    }

    /// A mint that issues sat and msat.
    pub(crate) fn msat() -> Self {
        let units = vec![CurrencyUnit::Sat, CurrencyUnit::Msat];
        let mint = MintOptions { units, ..MintOptions::default() };
        Self { mint, ..Self::default() }
    }

    pub(crate) fn config(config: Value) -> Self {
        Self { config, ..Self::default() }
    }

    /// An upstream that is given up on after this, for each of its waits.
    pub(crate) fn impatient(milliseconds: u64) -> Self {
        let limit = format!("{milliseconds}ms");
        Self { timeouts: json!({"first_byte": limit, "idle": limit}), ..Self::default() }
    }
}

/// An API key as clients hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) String);

impl Key {
    /// The key of the account that this Cashu token opens, by the documented derivation.
    pub(crate) fn of(ecash: &str) -> Self {
        let digest = hex::encode(Sha256::digest(ecash));
        Self(format!("sk-{}", &digest[..32]))
    }

    /// The longer form that existing clients compute: `sk-` and all 64 digits.
    pub(crate) fn long_of(ecash: &str) -> Self {
        Self(format!("sk-{}", hex::encode(Sha256::digest(ecash))))
    }
}

/// What `GET /v1/balance/info` says, in msat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) available: u64,
    pub(crate) reserved: u64,
    pub(crate) spent: u64,
    pub(crate) requests: u64,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Setting::default()).await
    }

    pub(crate) async fn with(setting: Setting) -> Self {
        let units = setting.accepts.as_ref().unwrap_or(&setting.mint.units);
        let units: Vec<String> = units.iter().map(ToString::to_string).collect();
        let api_key = setting.upstream.api_key.clone();
        let mint = Mint::start(setting.mint).await.unwrap();
        let faucet = Arc::new(Faucet::new(&mint.url()).unwrap());
        let sandbox = Upstream::start(setting.upstream).await.unwrap();
        let mut origin = upstream("sandbox", &sandbox, &api_key);
        merge(&mut origin["timeouts"], setting.timeouts);
        let mut models: Vec<Value> = std::iter::once("demo".to_owned())
            .chain(Misbehaviour::ALL.into_iter().map(Misbehaviour::model))
            .map(|id| model(&id, &["sandbox"]))
            .collect();
        models.extend(setting.more_models);
        let mut upstreams = vec![origin];
        upstreams.extend(setting.more_upstreams);
        let mut config = json!({
            "log": "debug",
            "listen": {"threads": 2, "drain": "20s"},
            "mint_timeout": "5s",
            // Limits that no test meets unless it sets its own.
            "rate_limits": {
                "requests_per_minute": LIMIT_MAX,
                "tokens_per_hour": LIMIT_MAX,
                "concurrent": LIMIT_MAX,
            },
            // Everybody here is one address, and more zealous than any stranger may be.
            "guard": {
                "unpaid_per_minute": 0,
                "unknown_keys_per_minute": 0,
                "failed_redemptions_per_minute": 0,
                "openings_per_minute": 0,
            },
            // Refused with 402 as a whole, unless a test is about being served less.
            "reservation": {"affordable_output_min": 0},
            "mints": [{"url": mint.url(), "units": units}],
            "upstreams": upstreams,
            "models": models,
        });
        let servers = match &setting.fleet {
            None => None,
            Some(fleet) => Some(Servers::start(fleet, &mut config).await),
        };
        merge(&mut config, setting.config);
        let gateway = Gateway::start(config.clone()).await;
        let mut others = Vec::new();
        for _ in 1..setting.fleet.map_or(1, |fleet| fleet.gateways) {
            others.push(Gateway::start(config.clone()).await);
        }
        // What a gateway shows in TLS is examined by the tests that are about it.
        let client = Client::builder().no_proxy().danger_accept_invalid_certs(true);
        let client = client.timeout(super::PATIENCE).build().unwrap();
        Self { mint, faucet, upstream: sandbox, gateway, others, servers, client }
    }

    /// A fresh Cashu token of this many sats.
    pub(crate) async fn sats(&self, amount: u64) -> String {
        self.faucet.cashu(amount, CurrencyUnit::Sat, TokenFormat::B).await.unwrap()
    }

    /// What ecash is worth to who gets it, in its own unit.
    pub(crate) async fn worth(&self, ecash: &str) -> u64 {
        self.faucet.value_in_fresh_wallet(ecash).await.unwrap()
    }

    pub(crate) async fn is_spent(&self, ecash: &str) -> bool {
        self.faucet.is_spent(ecash).await.unwrap()
    }

    /// A key with a fresh balance of this many sats.
    pub(crate) async fn key(&self, sats: u64) -> Key {
        let ecash = self.sats(sats).await;
        self.key_of(&ecash).await
    }

    /// A key with a fresh balance of exactly this many msat, of a mint that issues them.
    pub(crate) async fn key_of_msat(&self, amount: u64) -> Key {
        let ecash = self.faucet.cashu(amount, CurrencyUnit::Msat, TokenFormat::B).await.unwrap();
        self.key_of(&ecash).await
    }

    /// The key that this Cashu token opens.
    pub(crate) async fn key_of(&self, ecash: &str) -> Key {
        let asked = json!({"initial_balance_token": ecash});
        let created = self.post("/v1/balance/create", Pay::Nothing, &asked).await.expect(200);
        Key(created.json()["api_key"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn info(&self, pay: impl Into<Pay<'_>>) -> Balance {
        Self::balance_in(&self.fetch("/v1/balance/info", pay.into()).await.expect(200))
    }

    fn balance_in(answer: &Answer) -> Balance {
        let info = answer.json();
        let amount = |name: &str| info[name].as_u64().unwrap();
        Balance {
            available: amount("balance"),
            reserved: amount("reserved"),
            spent: amount("total_spent"),
            requests: amount("total_requests"),
        }
    }

    /// The balance once nothing is reserved any more, and the ledger has the time to say so.
    pub(crate) async fn settled(&self, pay: impl Into<Pay<'_>>) -> Balance {
        let pay = pay.into();
        let settled = async {
            loop {
                let answer = self.fetch("/v1/balance/info", pay).await;
                if answer.status != 503 {
                    let balance = Self::balance_in(&answer.expect(200));
                    if balance.reserved == 0 {
                        return balance;
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        within("every reservation ends", settled).await
    }

    /// A chat completion, read to its end.
    pub(crate) async fn chat(&self, pay: impl Into<Pay<'_>>, body: &Value) -> Answer {
        self.post("/v1/chat/completions", pay.into(), body).await
    }

    /// A chat completion whose answer may break off.
    pub(crate) async fn try_chat(
        &self,
        pay: impl Into<Pay<'_>>,
        body: &Value,
    ) -> reqwest::Result<Answer> {
        let path = "/v1/chat/completions";
        let request = self.request(Method::POST, path, pay.into()).body(body.to_string());
        Answer::read(request.send().await?).await
    }

    /// Asks for everything that is left.
    pub(crate) async fn refund(&self, pay: impl Into<Pay<'_>>) -> Answer {
        self.post("/v1/balance/refund", pay.into(), &json!({})).await
    }

    /// Claims the change of a payment once it is ready: 425 says that it is not yet.
    pub(crate) async fn claim(&self, original: &str) -> Answer {
        let claimed = async {
            loop {
                let answer = self.refund(Pay::XCashu(original)).await;
                if answer.status != 425 {
                    return answer;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        within("the change is ready", claimed).await
    }

    pub(crate) async fn post(&self, path: &str, pay: Pay<'_>, body: &Value) -> Answer {
        let request = self.request(Method::POST, path, pay).body(body.to_string());
        Answer::read(request.send().await.unwrap()).await.unwrap()
    }

    pub(crate) async fn fetch(&self, path: &str, pay: Pay<'_>) -> Answer {
        let request = self.request(Method::GET, path, pay);
        Answer::read(request.send().await.unwrap()).await.unwrap()
    }

    /// A request to the gateway that is paid and says that its body is JSON.
    pub(crate) fn request(&self, method: Method, path: &str, pay: Pay<'_>) -> RequestBuilder {
        self.request_to(&self.gateway, method, path, pay)
    }

    /// The same to one gateway of a fleet.
    pub(crate) fn request_to(
        &self,
        gateway: &Gateway,
        method: Method,
        path: &str,
        pay: Pay<'_>,
    ) -> RequestBuilder {
        let url = gateway.url() + path;
        let request = self.client.request(method, url).header("content-type", "application/json");
        match pay.header() {
            Some((name, value)) => request.header(name, value),
            None => request,
        }
    }

    /// A connection to the gateway, byte by byte.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self.gateway.address()).await
    }

    /// Returns when the upstream has seen this many requests in all.
    pub(crate) async fn asked(&self, count: u64) {
        within("the upstream is asked", self.upstream.await_request(count)).await;
    }

    /// Returns when the upstream has been hung up on this many times in all.
    pub(crate) async fn upstream_left(&self, count: u64) {
        within("the upstream is hung up on", self.upstream.await_client_gone(count)).await;
    }

    /// What the upstream itself answers to this body.
    pub(crate) async fn ask_upstream(&self, body: &Value) -> Answer {
        let request = self
            .client
            .post(self.upstream.base_url() + "/chat/completions")
            .header("content-type", "application/json")
            .bearer_auth(nutgate_sandbox::upstream::DEFAULT_API_KEY)
            .body(body.to_string());
        Answer::read(request.send().await.unwrap()).await.unwrap()
    }
}

/// A model of the configuration, at the price of every other.
pub(crate) fn model(id: &str, upstreams: &[&str]) -> Value {
    json!({
        "id": id,
        "upstreams": upstreams,
        "context_length": 128_000,
        "max_output_tokens": MODEL_OUTPUT_TOKENS,
        "price": Price::config(),
    })
}

/// An upstream of the configuration.
pub(crate) fn upstream(name: &str, at: &Upstream, api_key: &str) -> Value {
    json!({
        "name": name,
        "base_url": at.base_url(),
        "api_key": api_key,
        "timeouts": {},
        // More failures than any test causes, unless it is about being left alone.
        "health": {"failures": 1000},
    })
}

const LIMIT_MAX: u64 = 1_000_000_000;

/// What is reserved for when a request names no limit.
pub(crate) const MODEL_OUTPUT_TOKENS: u64 = 256;

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from,
    }
}
