//! Asking on any route, at the gateway and at the upstream itself.

use reqwest::{Method, RequestBuilder};
use tokio::task::JoinSet;

use super::{Answer, Ask, Later, Pay, Purse, Sold, Way, World};

impl World {
    /// The answer on any route, read to its end.
    pub(crate) async fn ask(&self, pay: impl Into<Pay<'_>>, ask: &Ask) -> Answer {
        Answer::read(self.asking(&ask.path(), pay.into(), ask).send().await.unwrap()).await.unwrap()
    }

    /// The same, awaited later.
    pub(crate) fn ask_later(&self, pay: Pay<'_>, ask: &Ask) -> Later {
        let request = self.asking(&ask.path(), pay, ask);
        let mut asked = JoinSet::new();
        asked.spawn(async move { Answer::read(request.send().await?).await });
        Later(asked)
    }

    /// A request that is not sent yet, to whatever path.
    pub(crate) fn asking(&self, path: &str, pay: Pay<'_>, ask: &Ask) -> RequestBuilder {
        let request = typed(self.client.request(Method::POST, self.gateway.url() + path), ask);
        match pay.header() {
            Some((name, value)) => request.header(name, value),
            None => request,
        }
    }

    /// Buys with fresh ecash. Answers with what it cost, see [`World::cost`].
    pub(crate) async fn buy_ask(&self, way: Way, ask: &Ask) -> (Answer, u64) {
        let purse = self.purse(way).await;
        let answer = self.ask(purse.pay(), ask).await;
        let cost = self.cost(&purse, Some(&answer)).await;
        (answer, cost)
    }

    /// What is reserved for it while the upstream, which has a gate, works on it. It is served
    /// afterwards.
    pub(crate) async fn reserved_for(&self, purse: &Purse, ask: &Ask) -> u64 {
        self.upstream.close_gate();
        let asked = self.upstream.count() + 1;
        let later = self.ask_later(purse.pay(), ask);
        self.asked(asked).await;
        let reserved = self.info(&purse.key).await.reserved;
        self.upstream.open_gate();
        later.answer().await.expect(200);
        reserved
    }

    /// What the upstream itself answers.
    pub(crate) async fn ask_upstream_for(&self, ask: &Ask) -> Answer {
        let url = self.upstream.base_url() + ask.kind.sold.path();
        let request = typed(self.client.request(Method::POST, url), ask)
            .bearer_auth(nutgate_sandbox::upstream::DEFAULT_API_KEY);
        Answer::read(request.send().await.unwrap()).await.unwrap()
    }
}

fn typed(request: RequestBuilder, ask: &Ask) -> RequestBuilder {
    let request = request.header("content-type", ask.content_type()).body(ask.body());
    match ask.kind.sold {
        Sold::Messages => request.header("anthropic-version", "2023-06-01"),
        _ => request,
    }
}
