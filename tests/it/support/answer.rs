//! An answer as a client has it, and the events in it.

use reqwest::header::HeaderMap;
use serde_json::Value;

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads a whole answer. One that breaks off is an error.
    pub(crate) async fn read(response: reqwest::Response) -> reqwest::Result<Self> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.bytes().await?.to_vec();
        Ok(Self { status, headers, body })
    }

    /// The same, if its status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Asserts that it is an error of WIRE.md section 3 with this status, type and code.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, kind: &str, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        assert_eq!(body["error"]["type"], kind, "{body}");
        assert_eq!(body["error"]["code"], code, "{body}");
        assert!(body["error"]["message"].is_string(), "{body}");
        assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"), "{body}");
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A header whose value is a whole number.
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.header(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    /// The ecash in the head; with its alias, which says the same. A payment request is none.
    #[track_caller]
    pub(crate) fn change(&self) -> Option<&str> {
        let change = self.header("x-cashu").filter(|text| !text.starts_with("creqA"));
        assert_eq!(change, self.header("x-cashu-refund"), "the alias says the same");
        change
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn events(&self) -> Events {
        Events::read(&self.text())
    }
}

/// The data of each event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Events(pub(crate) Vec<String>);

impl Events {
    pub(crate) fn read(text: &str) -> Self {
        let text = text.replace("\r\n", "\n");
        let data = |event: &str| {
            let lines: Vec<&str> =
                event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
            let lines: Vec<&str> = lines.iter().map(|l| l.strip_prefix(' ').unwrap_or(l)).collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        };
        Self(text.split("\n\n").filter_map(data).collect())
    }

    /// Those that are JSON, in their order.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.0.iter().filter_map(|data| serde_json::from_str(data).ok()).collect()
    }

    /// The text of the first choice, as a client puts it together.
    pub(crate) fn content(&self) -> String {
        let delta = |chunk: &Value| {
            let choice = chunk["choices"].get(0)?;
            choice["delta"]["content"].as_str().map(str::to_owned)
        };
        self.json().iter().filter_map(delta).collect()
    }

    /// How many of them gave text.
    pub(crate) fn deliveries(&self) -> u64 {
        let gives = |chunk: &&Value| {
            chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
        };
        self.json().iter().filter(gives).count().try_into().unwrap()
    }

    /// The usage objects, in their order.
    pub(crate) fn usages(&self) -> Vec<Value> {
        let usage = |chunk: Value| chunk.get("usage").filter(|usage| usage.is_object()).cloned();
        self.json().into_iter().filter_map(usage).collect()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.last().is_some_and(|data| data == "[DONE]")
    }
}
