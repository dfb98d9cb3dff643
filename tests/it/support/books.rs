//! What the gateway's own books say, and a request whose answer is awaited later.

use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Answer, Pay, World, within};

/// A request that is on its way; given up when this is dropped.
pub(crate) struct Later(pub(super) JoinSet<reqwest::Result<Answer>>);

impl Later {
    pub(crate) async fn answer(self) -> Answer {
        self.ended().await.unwrap()
    }

    /// Its answer, which may break off.
    pub(crate) async fn ended(mut self) -> reqwest::Result<Answer> {
        within("an answer", self.0.join_next()).await.unwrap().unwrap()
    }
}

impl World {
    /// A chat completion that is asked for at once, and whose answer is awaited later.
    pub(crate) fn chat_later<'p>(&self, pay: impl Into<Pay<'p>>, body: &Value) -> Later {
        let path = "/v1/chat/completions";
        let request = self.request(Method::POST, path, pay.into()).body(body.to_string());
        let mut asked = JoinSet::new();
        asked.spawn(async move { Answer::read(request.send().await?).await });
        Later(asked)
    }

    /// What the history tells of every request of an account, newest first.
    pub(crate) async fn receipts(&self, pay: impl Into<Pay<'_>>) -> Vec<Value> {
        let (pay, mut query, mut told) = (pay.into(), "limit=100".to_owned(), Vec::new());
        loop {
            let page = self.fetch(&format!("/v1/balance/history?{query}"), pay).await;
            let page = page.expect(200).json();
            let entries = page["data"].as_array().unwrap().iter();
            told.extend(entries.filter(|entry| entry["kind"] == "request").cloned());
            let Some(cursor) = page["next_cursor"].as_str() else { return told };
            query = format!("limit=100&cursor={cursor}");
        }
    }

    /// The audit finds nothing, whether the gateway is running or dead.
    pub(crate) async fn check_balanced(&self) {
        let (code, said) = self.gateway.run("audit").await;
        assert_eq!(code, Some(0), "{said}");
    }

    /// The amount of every deposit that the ledger knows, in msat.
    pub(crate) fn deposits(&self) -> Vec<u64> {
        let database = self.gateway.database();
        let mut statement = database.prepare("SELECT amount FROM deposits").unwrap();
        let amounts = statement.query_map([], |row| row.get(0)).unwrap();
        amounts.map(Result::unwrap).collect()
    }
}
